"""The command line, as people run it: in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.connect import ROOT
from cluster.errors import UserError
from pipelines.recipe_file import load_recipe
from pipelines.stages import STAGES
from tests.waiting import PATIENCE_S
from ui import cli

pytestmark = pytest.mark.slow

VERBS = {*STAGES, "run", "demo", "serve", "export", "panel", "rollback", "reports", "waive", "init", "schema"} | {
    "data",
    "trials",
    "keys",
    "experiment",
    "submit",
    "jobs",
    "stop",
    "doctor",
    "version",
}


def sluice(*arguments, **environment):
    """Run `sluice` with a wide terminal; the finished process."""
    command = [sys.executable, "-m", "ui.cli", *map(str, arguments)]
    everything = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment
    return subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def forty_examples(tmp_path, recipe_file):
    """A recipe with forty examples: the size gate stays closed. Its base is not here: its tokens are not counted."""
    rows = [{"prompt": f"Which number follows {n}?", "completion": f"It is {n + 1}."} for n in range(40)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    declared = {"source": "made up", "collector": "the tests", "annotator": "Ada"}
    return recipe_file(
        dataset={"source": "examples.jsonl", "provenance": declared}, models=[{"base": "example/absent"}]
    )


def test_help_lists_every_verb_with_what_it_does():
    done = sluice("--help")
    assert done.returncode == 0
    listed = set(re.findall(r"^│ ([a-z]+) +[A-Z]", done.stdout, re.MULTILINE))
    assert listed == VERBS
    assert "3 a required gate is closed" in done.stdout


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(verb):
    done = CliRunner().invoke(cli.app, [verb, "-h"], prog_name="sluice")
    assert done.exit_code == 0 and f"sluice {verb}" in done.stdout, done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_help_names_its_gates(stage):
    from pipelines.stages import load_stage

    text = " ".join(CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [stage, "--help"]).stdout.split())
    assert all(gate in text for gate in load_stage(stage).gates)


@pytest.mark.parametrize(("typed", "meant"), [("adit", "audit"), ("trian", "train"), ("evalute", "evaluate")])
def test_a_mistyped_verb_is_refused_with_the_nearest_one(typed, meant):
    done = sluice(typed, "recipe.yaml")
    assert done.returncode == 2 and f"'{meant}'" in done.stderr and "Traceback" not in done.stderr


def test_a_stage_without_a_recipe_is_a_wrong_request():
    done = sluice("audit")
    assert done.returncode == 2 and "Missing argument" in done.stderr


@pytest.mark.cluster
def test_audit_exits_3_split_names_the_gate_and_a_waiver_opens_it(workspace, forty_examples):
    audit = sluice("audit", "--json", forty_examples)
    assert audit.returncode == 3
    report = json.loads(audit.stdout)
    assert report["verdict"] == "closed" and report["figures"]["rows"] == 40

    refused = sluice("split", forty_examples)
    assert refused.returncode == 3 and "data.size is closed" in refused.stderr and "sluice waive" in refused.stderr

    waived = sluice(
        "waive", forty_examples, "data.size", "--because", "a pilot", "--by", "Ada", "--until", "2099-12-31"
    )
    assert waived.returncode == 0
    assert f"data.size is waived by Ada until 2099-12-31 23:59 UTC, for report {report['key'][:12]}" in waived.stdout

    split = sluice("split", forty_examples, "--json")
    assert split.returncode == 0, split.stderr
    assert json.loads(sluice("reports", report["key"][:12], "--json").stdout)["verdict"] == "waived"


@pytest.mark.cluster
def test_a_waiver_without_a_reason_is_a_wrong_request(workspace, forty_examples):
    sluice("audit", forty_examples)
    done = sluice("waive", forty_examples, "data.size", "--by", "Ada")
    assert done.returncode == 2 and "--because is empty" in done.stderr
    done = sluice(
        "waive", forty_examples, "data.size", "--by", "Ada", "--because", "x", "--until", "2001-01-01", "--json"
    )
    assert done.returncode == 2 and json.loads(done.stdout)["verdict"] == "error"


def test_training_before_the_audit_exits_3_and_names_the_missing_evidence(workspace, forty_examples):
    done = sluice("train", forty_examples)
    assert done.returncode == 3
    assert "there is no audit report" in done.stderr and "`sluice audit RECIPE`" in done.stderr


@pytest.mark.cluster
def test_one_changed_byte_of_the_data_needs_another_audit(workspace, forty_examples):
    sluice("audit", forty_examples)
    sluice("waive", forty_examples, "data.size", "--by", "Ada", "--because", "a pilot")
    assert sluice("split", forty_examples).returncode == 0
    data = forty_examples.parent / "examples.jsonl"
    data.write_bytes(data.read_bytes().replace(b"follows 7?", b"follows 8?"))
    done = sluice("split", forty_examples)
    assert done.returncode == 3
    assert "the last audit report is on other inputs (dataset changed)" in done.stderr


@pytest.mark.cluster
def test_overrides_and_flags_stand_anywhere(workspace, forty_examples):
    done = sluice("audit", "audit.min_examples=40", "--json", forty_examples)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["audit"]["min_examples"] == 40


@pytest.mark.cluster
def test_reports_are_listed_and_shown(workspace, forty_examples):
    assert "No reports yet" in sluice("reports").stdout
    key = json.loads(sluice("audit", forty_examples, "--json").stdout)["key"]
    listed = sluice("reports")
    assert key[:12] in listed.stdout and "data.size" in listed.stdout
    assert json.loads(sluice("reports", "--json", "--stage", "audit").stdout)[0]["key"] == key
    assert json.loads(sluice("reports", "--json", "--recipe", "other").stdout) == []
    assert "data.size.too_few" in sluice("reports", key[:8]).stdout
    unknown = sluice("reports", "zzz")
    assert unknown.returncode == 2 and "No report's key starts with 'zzz'" in unknown.stderr


def test_init_writes_a_recipe_that_loads_and_never_overwrites(tmp_path):
    path = tmp_path / "mine.yaml"
    done = sluice("init", path, "--name", "support-bot", "--source", "tickets/*.csv")
    assert done.returncode == 0 and f"sluice audit {path}" in done.stdout
    recipe = load_recipe(path)
    assert recipe.name == "support-bot" and recipe.dataset.source == str(tmp_path / "tickets/*.csv")
    before = path.read_bytes()
    again = sluice("init", path)
    assert again.returncode == 2 and "exists already" in again.stderr and path.read_bytes() == before


@pytest.mark.parametrize("name", ["Not Good", "a/b", "x" * 64])
def test_init_refuses_a_name_that_no_recipe_may_have(tmp_path, name):
    path = tmp_path / "mine.yaml"
    done = sluice("init", path, "--name", name)
    assert done.returncode == 2 and "name:" in done.stderr and not path.exists()


def test_the_schema_is_valid_and_accepts_what_we_ship():
    import jsonschema
    import yaml

    schema = json.loads(sluice("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    demo = yaml.safe_load((ROOT / "pipelines/recipes/demo.yaml").read_text())
    # Plain YAML reads 5e-4 as text, our loader and editors do not.
    demo["train"]["learning_rate"] = float(demo["train"]["learning_rate"])
    demo["sweep"]["space"]["learning_rate"] = {"loguniform": [2e-4, 2e-3]}
    assert [error.message for error in validator.iter_errors(demo)] == []
    assert list(validator.iter_errors(demo | {"trian": {}}))
    assert "Peak learning rate" in json.dumps(schema)


def test_version_is_that_of_the_project():
    done = sluice("version")
    assert f'version = "{done.stdout.split()[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_jobs_without_any_submission_says_how_to_make_one(workspace):
    done = sluice("jobs")
    assert done.returncode == 0 and "sluice submit" in done.stdout


def test_submitting_where_no_cluster_answers_is_a_sentence(workspace, forty_examples):
    done = sluice("submit", "audit", forty_examples, RAY_ADDRESS="http://127.0.0.1:1")
    assert done.returncode == 2 and "No Ray cluster answers at http://127.0.0.1:1" in done.stderr
    done = sluice("submit", "adit", forty_examples)
    assert done.returncode == 2 and "did you mean audit?" in done.stderr


def test_a_reader_that_leaves_early_hears_nothing_of_it():
    shell = f"{sys.executable} -m ui.cli schema | head -c 10"
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == '{\n  "$sche' and done.stderr == ""


def ending(monkeypatch, capsys, error):
    """How `main` ends when a verb raises `error`: exit code and what stands on standard error."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main(["audit", "x.yaml"])
    return caught.value.code, capsys.readouterr().err


def test_what_nobody_foresaw_is_a_sentence_and_a_file_that_only_its_owner_reads(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, err = ending(monkeypatch, capsys, ZeroDivisionError("division by zero\nsecond line"))
    assert code == 1 and "Traceback" not in err
    assert err.startswith("sluice: unexpected ZeroDivisionError: division by zero\n  -> The full account is in ")
    account = Path(err.rsplit(" ", 1)[1].strip())
    assert "Traceback" in account.read_text() and account.read_text().startswith("sluice audit x.yaml")
    assert account.stat().st_mode & 0o777 == 0o600


def test_a_persons_mistake_keeps_its_own_exit_code(monkeypatch, capsys):
    assert ending(monkeypatch, capsys, UserError("No.", "Yes.")) == (2, "sluice: No.\n  -> Yes.\n")


def test_an_interrupt_ends_as_shells_expect(monkeypatch, capsys):
    code, err = ending(monkeypatch, capsys, KeyboardInterrupt())
    assert code == 130 and "interrupted" in err
