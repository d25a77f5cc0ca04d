"""`sluice keys`: what people type and see."""

import json

import pytest

from pipelines.records import ApiKeyRow
from serve.keys import digest
from ui import cli


@pytest.fixture
def run(capsys, monkeypatch):
    """`run(*arguments) -> (exit code, what was printed, what was said beside it)`."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SLUICE_BY", "jane")

    def perform(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["keys", *map(str, arguments)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return perform


@pytest.fixture
def recipe(workspace, recipe_file):
    return recipe_file(serve={"keys": "required"})


@pytest.fixture
def stored(workspace):
    from sqlalchemy import select

    def read():
        with workspace.session() as session:
            return list(session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id)))

    return read


def test_the_key_stands_alone_on_standard_output_and_what_it_may_do_beside_it(run, recipe, stored):
    code, out, err = run("add", recipe, "shop", "--per-minute", 60, "--expires-days", 90)
    (row,) = stored()
    assert code == 0 and digest(out.strip()) == row.sha256 and out.count("\n") == 1
    assert "The key of shop: chat, feedback, events, models; 60 requests a minute; until" in err
    assert "this once" in err and "SLUICE_API_KEY" in err
    assert out.strip() not in err and (row.by, row.per_minute) == ("jane", 60)
    assert (row.expires_at - row.created_at).days == 90


def test_a_recipe_that_asks_for_no_keys_says_so(run, workspace, recipe_file, stored):
    code, _, err = run("add", recipe_file(), "shop")
    assert code == 0 and len(stored()) == 1
    assert "small asks for no keys yet: set serve.keys to required" in err


def test_scopes_are_given_one_by_one_and_a_wrong_one_is_a_wrong_request(run, recipe, stored):
    assert run("add", recipe, "scraper", "--scope", "metrics", "--scope", "models")[0] == 0
    assert stored()[0].scopes == "models metrics"
    code, out, err = run("add", recipe, "other", "--scope", "metric")
    assert code == 2 and out == "" and "did you mean metrics?" in err and len(stored()) == 1


@pytest.mark.parametrize(
    "options", [("--per-minute", "0"), ("--per-minute", "many"), ("--expires-days", "-1"), ("--scope",)]
)
def test_options_out_of_range_make_no_key(run, recipe, stored, options):
    assert run("add", recipe, "shop", *options)[0] == 2
    assert stored() == []


def test_json_holds_the_key_once_and_never_again(run, recipe):
    made = json.loads(run("add", recipe, "shop", "--json")[1])
    assert made["key"].startswith(made["prefix"]) and made["scopes"] == ["chat", "feedback", "events", "models"]
    listed = run("list", recipe, "--json")[1]
    (told,) = json.loads(listed)
    assert made["key"] not in listed and "key" not in told and "sha256" not in told
    assert (told["name"], told["state"], told["per_minute"]) == ("shop", "active", None)


def test_the_list_shows_what_each_key_may_do_and_whether_it_counts(run, recipe):
    assert "`sluice keys add RECIPE NAME`" in run("list", recipe)[1]
    key = run("add", recipe, "shop", "--per-minute", 60)[1].strip()
    run("rotate", recipe, "shop")
    run("add", recipe, "[red]old[/red]")
    run("revoke", recipe, "[red]old[/red]")
    code, out, _ = run("list", recipe)
    assert code == 0 and key not in out and key[:11] + "..." in out
    assert [word for line in out.splitlines() for word in line.split() if word in ("active", "ending", "revoked")] == [
        "ending",
        "active",
        "revoked",
    ]
    assert "[red]old[/red]" in out and "chat, feedback, events, models" in out


def test_a_rotation_prints_the_new_key_and_how_long_the_old_one_counts(run, recipe, stored):
    old = run("add", recipe, "shop")[1].strip()
    code, out, err = run("rotate", recipe, "shop", "--grace-hours", "1.5")
    assert code == 0 and out.strip() != old and digest(out.strip()) == stored()[1].sha256
    assert "The old key counts for at most 1.5 h more." in err
    assert "no longer counts" in run("rotate", recipe, "shop", "--grace-hours", "0")[2]


def test_a_revoked_key_is_told_by_name_and_first_characters(run, recipe, stored):
    run("add", recipe, "shop")
    code, out, _ = run("revoke", recipe, "shop")
    assert code == 0 and out == f"shop ({stored()[0].prefix}...) is revoked; a gateway that runs knows within 10 s.\n"
    code, _, err = run("revoke", recipe, "shop")
    assert code == 2 and "small has no key 'shop' that counts" in err and "sluice keys list" in err


def test_a_key_in_place_of_a_name_is_not_repeated(run, recipe):
    key = run("add", recipe, "shop")[1].strip()
    for verb in ("add", "rotate", "revoke"):
        code, out, err = run(verb, recipe, key)
        assert code == 2 and key not in out + err


def test_keys_of_a_recipe_that_is_not_there_are_a_wrong_request(run, workspace):
    code, _, err = run("list", "none.yaml")
    assert code == 2 and "no such recipe" in err
