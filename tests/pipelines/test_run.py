"""The whole pipeline: order, stopping at a closed gate, exit codes, and what is printed."""

import json

import pytest
import yaml

from cluster.errors import Stopped
from pipelines import run
from pipelines.gates import Verdict
from pipelines.progress import Progress
from pipelines.recipe_file import load_recipe
from pipelines.summary import next_steps
from pipelines.tracking import deployments

SWEEP = {"space": {"learning_rate": {"choice": [1e-4, 2e-4]}}}


def test_every_stage_runs_in_order_and_the_model_is_deployed(chain, recipe_file):
    recipe = load_recipe(recipe_file())
    reports = run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))
    assert [report.stage for report in reports] == ["audit", "split", "train", "evaluate", "promote"]
    assert deployments.current(chain.workspace, "small").content["train"] == reports[2].produced


def test_a_sweep_runs_where_the_recipe_has_one(chain, recipe_file):
    recipe = load_recipe(recipe_file(sweep=SWEEP))
    reports = run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))
    assert [report.stage for report in reports] == ["audit", "split", "sweep", "train", "evaluate", "promote"]


def test_a_second_run_does_no_work_twice(chain, recipe_file):
    recipe = load_recipe(recipe_file())
    first = run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))
    worked = list(chain.performed)
    assert run.run_pipeline(recipe, chain.workspace, Progress(quiet=True)) == first
    assert chain.performed == worked
    run.run_pipeline(recipe, chain.workspace, Progress(quiet=True), fresh=True)
    assert chain.performed == worked * 2


def test_a_stop_that_was_asked_for_ends_the_run_before_the_next_stage(chain, recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file())
    monkeypatch.setattr("pipelines.submissions.stop_requested", lambda workspace: "evaluate" in chain.performed)
    with pytest.raises(Stopped, match="Stopped before promote"):
        run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))
    # Nothing went into production after a person had said stop.
    assert deployments.current(chain.workspace, "small") is None
    monkeypatch.setattr("pipelines.submissions.stop_requested", lambda workspace: False)
    assert run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))[-1].stage == "promote"


def test_the_first_closed_gate_ends_the_run(chain, recipe_file):
    chain.closed.add("split")
    reports = run.run_pipeline(load_recipe(recipe_file()), chain.workspace, Progress(quiet=True))
    assert [report.stage for report in reports] == ["audit", "split"]
    assert reports[-1].verdict is Verdict.CLOSED
    assert "train" not in chain.performed


def test_a_run_that_ends_at_a_gate_exits_3_and_says_how_to_go_on(chain, recipe_file, capsys):
    chain.closed.add("evaluate")
    path = recipe_file()
    assert run.main([str(path)]) == 3
    shown = capsys.readouterr()
    assert "evaluate.rule keeps the rest from starting" in shown.out
    assert f"sluice waive {path} evaluate.rule" in shown.out
    assert "4/5 evaluate" in shown.err, "headings go to standard error"


def test_a_run_to_the_end_shows_base_against_tuned_with_intervals(chain, recipe_file, capsys):
    assert run.main([str(recipe_file())]) == 0
    shown = capsys.readouterr().out
    assert "ROUGE-L" in shown and "+0.091 [+0.051, +0.131]" in shown
    assert "registry.lineage" in shown
    assert "sluice serve" in shown


def test_json_is_alone_on_standard_output(chain, recipe_file, capfd):
    assert run.main([str(recipe_file()), "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["verdict"] == "open"
    assert [report["stage"] for report in content["reports"]][-1] == "promote"


def test_overrides_reach_the_recipe(chain, recipe_file, capsys):
    assert run.main([str(recipe_file()), "train.learning_rate=3e-4", "--dry-run"]) == 0
    assert "learning_rate: 0.0003" in capsys.readouterr().out
    assert chain.performed == []


def test_the_recipe_and_the_overrides_stand_in_any_order(chain, recipe_file, capsys):
    path = recipe_file()
    assert run.main(["--dry-run", "train.learning_rate=3e-4", str(path), "seed=5"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["train"]["learning_rate"], shown["seed"]) == (3e-4, 5)
    assert run.main(["seed=5", str(path)]) == 0
    assert f"sluice serve {path}" in capsys.readouterr().out


def test_a_dry_run_prints_the_resolved_recipe_and_what_each_stage_reads_or_misses(chain, recipe_file, capsys):
    path = recipe_file()
    assert run.main([str(path), "--dry-run"]) == 0
    before = capsys.readouterr().out
    assert yaml.safe_load(before) == load_recipe(path).model_dump(mode="json", exclude_none=True)
    plans = before.split("# plan of ")[1:]
    assert [plan.split("\n")[0] for plan in plans] == ["audit", "split", "train", "evaluate", "promote"]
    assert "# reads:\n#   data: " in plans[0]
    assert "# missing:\n#   small: there is no audit report" in plans[1]
    assert chain.performed == []

    run.run_pipeline(load_recipe(path), chain.workspace, Progress(quiet=True))
    assert run.main([str(path), "--dry-run", "--json"]) == 0
    assert "# missing" not in capsys.readouterr().out


def test_a_wrong_recipe_exits_2(chain, tmp_path, capsys):
    assert run.main([str(tmp_path / "none.yaml")]) == 2
    assert "no such recipe" in capsys.readouterr().err


def test_an_unforeseen_error_is_not_swallowed(chain, recipe_file):
    chain.failing["train"] = RuntimeError("the disk is full")
    with pytest.raises(RuntimeError, match="the disk is full"):
        run.run_pipeline(load_recipe(recipe_file()), chain.workspace, Progress(quiet=True))


def test_the_next_steps_follow_from_the_last_report(chain, recipe_file):
    recipe = load_recipe(recipe_file())
    reports = run.run_pipeline(recipe, chain.workspace, Progress(quiet=True))
    assert any(step.startswith("sluice serve r.yaml") for step in next_steps(reports, "r.yaml"))
