"""`sluice data`: what people see of versions, fits and reviews."""

import json

import pytest

from cluster.errors import GateClosed
from pipelines import audit, split
from pipelines.data.versioned.ledger import record_fit
from pipelines.data.versioned.table import read_version
from pipelines.recipe_file import load_recipe
from ui import cli

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path, recipe_file, workspace, monkeypatch):
    """A recipe whose split has two versions, in the workspace that the command line opens."""
    monkeypatch.setattr("ui.commands.data.Workspace", lambda: workspace)

    def grow(count):
        rows = [
            {"prompt": " ".join(f"w{n * 50 + i}" for i in range(12)), "completion": f"a{n} " * (300 if n == 3 else 6)}
            for n in range(count)
        ]
        (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = recipe_file(
            dataset={"source": "examples.jsonl", "provenance": {"annotator": "jane", "collector": "ops"}},
            audit={"min_examples": 1, "max_duplicate_share": 1, "anomalies": {"max_share": 1}},
        )
        for stage in (audit.STAGE, split.STAGE):
            stage.perform(load_recipe(path), workspace)
        return path

    grow(60)
    return grow(80)


@pytest.fixture
def run(capsys):
    """`run(*arguments) -> (exit code, what was printed, what was said beside it)`."""

    def perform(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", *map(str, arguments)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return perform


def as_json(run, *arguments):
    code, printed, _ = run(*arguments, "--json")
    assert code == 0
    return json.loads(printed)


def test_the_log_and_a_difference_tell_what_grew(recipe, run):
    listed = as_json(run, "log", recipe)
    assert [each["version"] for each in listed] == [1, 0] and sum(listed[0]["rows"].values()) == 80
    code, printed, _ = run("log", recipe)
    assert code == 0 and "policy" in printed and "held_out" in printed
    found = as_json(run, "diff", recipe, 0, 1, "--limit", 3)
    assert (found["added"], found["removed"], found["changed"], found["moved"]) == (20, 0, 0, 0)
    assert len(found["ids"]["added"]) == 3
    code, printed, _ = run("diff", recipe, 0, 1)
    assert code == 0 and printed.startswith("0 -> 1: 20 added, 0 removed, 0 changed, 0 moved")


def test_moved_rows_end_with_an_error(recipe, run, workspace):
    from tests.pipelines.data.small_table import write_rows

    uri = workspace.uri("splits", load_recipe(recipe).name)
    stored = read_version(uri, 1).to_pylist()
    stored[0]["split"] = "test" if stored[0]["split"] == "train" else "train"
    write_rows(uri, *stored, policy=split.policy_of(load_recipe(recipe)))
    code, printed, said = run("diff", recipe, 1, 2)
    assert code == 1 and "1 moved" in printed and "1 examples moved between sides" in said
    code, printed, _ = run("diff", recipe, 1, 2, "--json")
    assert code == 1 and json.loads(printed)["problem"]


def test_a_version_is_shown_restored_and_exported(recipe, run, tmp_path):
    shown = as_json(run, "show", recipe, 0, "--side", "test", "--limit", 2)
    assert [row["split"] for row in shown["first_rows"]] == ["test"] * 2
    assert run("show", recipe, 1)[0] == 0
    assert as_json(run, "restore", recipe, 0) == {"restored": 0, "version": 2}
    assert as_json(run, "log", recipe)[0]["restored"] == 0
    told = as_json(run, "export", recipe, tmp_path / "out.csv", "--version", 1)
    assert told["rows"] == 80 and (tmp_path / "out.csv").is_file()
    assert as_json(run, "export", recipe, tmp_path / "new.parquet")["version"] == 2


def test_what_stands_in_the_data_steers_no_terminal(recipe, run, workspace):
    from tests.pipelines.data.small_table import write_rows

    uri = workspace.uri("splits", load_recipe(recipe).name)
    stored = read_version(uri, 1).to_pylist()[:1]
    said = [{"role": "user", "content": "\x1b[31mred\x07 \u202e"}, {"role": "assistant", "content": "no"}]
    write_rows(uri, stored[0] | {"messages": json.dumps(said), "group": "\x1b]0;title\x07"})
    for arguments in (("show", recipe, 2), ("diff", recipe, 1, 2)):
        printed = run(*arguments)[1]
        assert r"\x1b[31mred" in printed and r"\x1b]0" in printed
        assert not {"\x1b", "\x07", "\u202e"} & set(printed)


def test_an_unknown_version_is_a_wrong_request_that_names_the_others(recipe, run):
    code, _, said = run("show", recipe, 7)
    assert code == 2 and "no version 7" in said and "1, 0" in said


def test_the_ledger_lists_fits_and_a_wrong_one_is_an_error(recipe, run, workspace):
    assert as_json(run, "ledger", recipe) == []
    loaded = load_recipe(recipe)
    uri = workspace.uri("splits", loaded.name)
    table = read_version(uri, 1, ("id", "split")).to_pylist()
    ids = {side: [row["id"] for row in table if row["split"] == side] for side in ("train", "test")}
    record_fit(workspace, loaded.name, uri, 1, "model weights", "train", ids["train"])
    assert as_json(run, "ledger", recipe)[0]["side"] == "train"
    record_fit(workspace, loaded.name, uri, 1, "vocabulary", "test", ids["test"])
    code, printed, said = run("ledger", recipe)
    assert code == 1 and "vocabulary saw test" in " ".join(printed.split()) and "must not see" in said


def test_a_review_is_listed_decided_and_leaves_its_example_out(recipe, run, workspace):
    listed = as_json(run, "review", recipe)
    assert listed["total"] >= len(listed["suspects"]) > 0
    suspect = listed["suspects"][0]
    assert suspect["decision"] is None and suspect["reason"]
    made = as_json(run, "review", recipe, "drop", suspect["id"][:12], "--by", "jane", "--because", "spam")
    assert made[0]["example"] == suspect["id"] and suspect["kind"] in made[0]["kinds"]
    again = as_json(run, "review", recipe, "list", "--limit", 100)
    assert {each["decision"] for each in again["suspects"] if each["id"] == suspect["id"]} == {"drop"}
    # What people decided is what the audit judges by: a split asks for a report that knows of it.
    with pytest.raises(GateClosed, match="reviews changed"):
        split.STAGE.perform(load_recipe(recipe), workspace)
    audit.STAGE.perform(load_recipe(recipe), workspace)
    report = split.STAGE.perform(load_recipe(recipe), workspace)
    assert report.figures["left_out"]["reviews"] == 1


def test_a_review_without_a_name_or_of_nobody_is_refused(recipe, run):
    id = as_json(run, "review", recipe)["suspects"][0]["id"]
    assert "--by is empty" in run("review", recipe, "keep", id, "--because", "fine")[2]
    assert "stands for no example" in run("review", recipe, "keep", "f" * 64, "--by", "j", "--because", "x")[2]
    assert "'ponder' is no review" in run("review", recipe, "ponder", id)[2]
    assert "Nothing is named" in run("review", recipe, "keep", "--by", "j", "--because", "x")[2]


def test_rows_that_were_kept_aside_are_listed_masked_and_inert(recipe, run, workspace, tmp_path):
    assert as_json(run, "quarantine", recipe) == {"rows": [], "total": 0}
    with (tmp_path / "examples.jsonl").open("a") as stream:
        stream.write('{"prompt": "jane.doe@example.org \x1b[31m", broken\n' * 3)
    audit.STAGE.perform(load_recipe(recipe), workspace)
    told = as_json(run, "quarantine", recipe, "--limit", 2, "--offset", 1)
    assert told["total"] == 3 and [row["row"] for row in told["rows"]] == [82, 83]
    assert told["rows"][0]["file"] == "examples.jsonl" and "<email" in told["rows"][0]["content"]
    code, printed, _ = run("quarantine", recipe)
    assert code == 0 and "3 of 3 rows" in printed
    assert "\x1b" not in printed and "jane.doe" not in printed


def test_nothing_is_kept_aside_before_an_audit(recipe_file, run, workspace, monkeypatch):
    monkeypatch.setattr("ui.commands.data.Workspace", lambda: workspace)
    code, _, said = run("quarantine", recipe_file())
    assert code == 2 and "never audited" in said and "sluice audit" in said
