"""The sweep stage on a tiny model: trials, their causes of failure, the winner on its way to training."""

import json

import pytest

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines import sweep, train
from pipelines.recipe_file import load_recipe
from pipelines.tracking import runs
from tests.pipelines.small_recipe import small_recipe  # noqa: F401


def test_a_recipe_without_a_sweep_says_what_to_do(recipe_file, workspace):
    with pytest.raises(UserError, match="no sweep section"):
        sweep.STAGE.perform(load_recipe(recipe_file()), workspace)


@pytest.mark.cluster
def test_the_winner_of_a_sweep_is_what_trains_and_is_named(small_recipe, ray_cluster):  # noqa: F811
    recipe = small_recipe(
        name="swept",
        sweep={
            "num_samples": 3,
            "default_trial": False,
            "max_steps": 4,
            "grace_steps": 2,
            "space": {"learning_rate": {"choice": [1e-2, 1e30]}, "lora_r": {"choice": [2, 4]}},
        },
    )
    with pytest.raises(GateClosed, match="no sweep report"):
        train.STAGE.perform(recipe, ray_cluster)
    searched = sweep.STAGE.perform(recipe, ray_cluster)

    trials = searched.figures["trials"]
    assert len(trials) == 3
    assert {"trial", "values", "validation_loss", "steps", "stopped", "seconds"} <= set(trials[0])
    # A rate of 1e30 leaves no numbers: such a trial has failed, and says why.
    for trial in trials:
        assert trial["stopped"].startswith("failed") == (trial["values"]["learning_rate"] == 1e30)
    winner = json.loads(searched.produced["winner"])
    assert winner["values"]["learning_rate"] == 1e-2
    tracked = [run for run in runs.list_runs(ray_cluster.settings, "swept") if run.stage == "trial"]
    assert len(tracked) == 3

    report = train.STAGE.perform(recipe, ray_cluster)

    assert report.figures["resolved_train"]["lora_r"] == winner["values"]["lora_r"]
    assert report.figures["winner"]["trial"] == winner["trial"]
    assert searched.key[:12] in report.figures["winner"]["origin"]["train.lora_r"]
    assert report.fingerprints["sweep"] == searched.key


@pytest.mark.cluster
def test_trials_of_two_workers_are_stopped_early_too(small_recipe, ray_cluster):  # noqa: F811
    recipe = small_recipe(
        name="wide",
        cluster={"num_workers": 2},
        sweep={
            "num_samples": 2,
            "search": "grid",
            "default_trial": False,
            "max_steps": 4,
            "grace_steps": 2,
            "space": {"learning_rate": {"choice": [1e-2, 1e-9]}},
        },
    )
    searched = sweep.STAGE.perform(recipe, ray_cluster)

    assert len(searched.figures["trials"]) == 2
    # One of the two went on past the first rung, alone: its further steps would decide nothing.
    assert sorted(trial["state"] for trial in searched.figures["trials"]) == ["finished", "stopped"]
    assert {trial["steps"] for trial in searched.figures["trials"]} == {2}
    assert all(trial["validation_loss"] > 0 for trial in searched.figures["trials"])


@pytest.mark.cluster
def test_when_every_trial_fails_the_stage_fails_with_the_causes(small_recipe, ray_cluster):  # noqa: F811
    space = {"learning_rate": {"choice": [1e30]}}
    short = {"num_samples": 2, "default_trial": False, "max_steps": 4, "grace_steps": 2}
    recipe = small_recipe(name="hopeless", sweep=short | {"space": space})
    with pytest.raises(StageFailed, match=r"All 2 trials failed.*diverged at step") as failed:
        sweep.STAGE.perform(recipe, ray_cluster)
    assert failed.value.exit_code == 1
    assert ray_cluster.reports(stage="sweep", recipe_name="hopeless") == []
