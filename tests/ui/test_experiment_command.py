"""`sluice experiment`: what people type and see."""

import json

import pytest

from pipelines.tracking import deployments
from serve.experimentation import lifecycle
from ui import cli

EXPERIMENT = {
    "primary": {"metric": "event.resolved"},
    "effect": {"baseline": 0.02, "difference": 0.05},
    "guardrails": [{"metric": "requests.failed", "per_unit": "mean", "margin": 0.02}],
}


@pytest.fixture
def run(capsys, monkeypatch):
    """`run(*arguments) -> (exit code, what was printed, what was said beside it)`."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SLUICE_BY", "jane")

    def perform(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["experiment", *map(str, arguments)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return perform


@pytest.fixture
def recipe(workspace, recipe_file):
    """A recipe whose model is in production, though no registry knows of it."""
    deployments.append(
        workspace,
        recipe_name="small",
        action="promote",
        model_name="small",
        model_version="1",
        content={"train": {}},
        by="ada",
    )
    return recipe_file(experiment=EXPERIMENT)


def test_a_plan_tells_units_power_and_days_before_anything_starts(run, recipe, workspace):
    code, out, _ = run("plan", recipe, "--units-per-day", 100)
    assert code == 0
    assert "tuned against base on event.resolved: 880 units planned." in out
    assert "Power 81%" in out and "538, and may be looked at once" in out
    assert "9 days at 100.0 new users a day and coverage 100%." in out
    code, out, _ = run("plan", recipe, "--json")
    assert json.loads(out)["planned"] == 880 and json.loads(out)["days"] is None
    assert lifecycle.listed(workspace) == []
    code, _, err = run("plan", recipe, "--units-per-day", 3)
    assert code == 2 and "880 units take 294 days" in err


def test_an_experiment_from_start_to_promotion(run, recipe, workspace):
    code, out, _ = run("start", recipe)
    assert code == 0 and "Experiment 1 of small runs: 880 units planned, 100% covered." in out
    code, out, _ = run("status", recipe)
    assert "too little is in" in out and "Nobody watches it" in out
    assert "requests.failed" in out and "open" in out
    code, out, _ = run("watch", recipe, "--once")
    assert code == 0 and "too little is in" in out
    code, out, _ = run("status", recipe, "--json")
    assert json.loads(out)["experiment"]["watched"] and json.loads(out)["look"]["outcome"] == "undecided"
    assert run("pause", recipe)[0] == 2 and run("pause", recipe, "--because", "an incident")[0] == 0
    assert run("resume", recipe, "--because", "over")[0] == 0
    code, _, err = run("cover", recipe, 0.5)
    assert code == 2 and "A coverage can only grow" in err
    code, _, err = run("promote", recipe)
    assert code == 3 and "experiment.verdict" in err and "--because" in err
    code, _, err = run("promote", recipe, "--because", "[red]all the same[/red]")
    # The registry knows nothing of this model: the switch stands, and it is said what does not.
    assert code == 2 and "is in force" in err
    assert deployments.traffic_of(deployments.current(workspace, "small")) == {"tuned": 1.0}
    code, out, _ = run("history", recipe)
    assert [word for word in ("start", "look", "pause", "resume", "end") if word not in out] == []
    assert "[red]all the same[/red]" in out
    code, out, _ = run("list", recipe)
    assert "promoted" in out and "event.resolved" in out


def test_what_is_not_there_is_said(run, recipe, recipe_file, workspace):
    assert "has had no experiment" in run("list", recipe)[1]
    code, _, err = run("status", recipe)
    assert code == 2 and "`sluice experiment start RECIPE`" in err
    code, _, err = run("stop", recipe, "--because", "x")
    assert code == 2 and "no experiment that runs" in err
    assert "no experiment that runs" in run("watch", recipe, "--once")[1]
    code, _, err = run("start", recipe_file("bare.yaml"))
    assert code == 2 and "section `experiment`" in err
    run("start", recipe)
    deployments.append(
        workspace, recipe_name="small", action="promote", model_name="m", model_version="2", content={}, by="bo"
    )
    # No registry knows that one either, and the switch that is told of is none.
    code, _, err = run("stop", recipe, "--because", "over")
    assert code == 2 and deployments.current(workspace, "small").model_version == "2"
    code, _, err = run("status", recipe, "--experiment", 7)
    assert code == 2 and "There are: 1." in err


def test_events_are_imported_from_a_file(run, recipe, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("event_id,name,user\n1,resolved,jane\n2,resolved,bo\n")
    assert "2 events stored, 0 were there already." in run("import", recipe, path)[1]
    assert json.loads(run("import", recipe, path, "--json")[1]) == {"stored": 0, "known": 2}
    path.write_text("event_id,name,user\n1,Resolved!,jane\n")
    code, _, err = run("import", recipe, path)
    assert code == 2 and "line 2: name" in err
