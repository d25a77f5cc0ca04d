import pytest

from pipelines.recipe import Recipe, Sweep, Train
from pipelines.search.estimate import estimate, measured_seconds_per_step, steps_of, trials_of
from pipelines.search.schedulers import rungs
from tests.pipelines.search.planted import halving, write

SPACE = {"learning_rate": {"choice": [1e-4, 2e-4]}, "lora_r": {"choice": [8, 16, 32]}}


def recipe_with(cluster=None, base="HuggingFaceTB/SmolLM2-135M-Instruct", **sweep):
    return Recipe.model_validate(
        {
            "name": "small",
            "dataset": {"source": "examples.jsonl"},
            "models": [{"base": base}],
            "sweep": sweep,
            "cluster": cluster or {},
        }
    )


def test_halving_takes_each_rung_with_those_that_went_on():
    sweep = Sweep(num_samples=9, max_steps=32, grace_steps=8, reduction_factor=2)
    assert rungs(sweep) == (8, 16, 32)
    assert steps_of(sweep, 9) == 9 * 8 + 5 * 8 + 3 * 16


@pytest.mark.parametrize("scheduler", ["median", "fifo"])
def test_other_rules_take_all_steps_at_most(scheduler):
    recipe = recipe_with(num_samples=4, max_steps=20, scheduler=scheduler)
    expected = estimate(recipe, recipe.sweep, 1, None)
    assert expected.steps == 80 and expected.at_most == (scheduler == "median")


def test_without_a_speed_there_are_neither_hours_nor_dollars():
    recipe = recipe_with(cluster={"price_per_hour": 2.0}, num_samples=4)
    expected = estimate(recipe, recipe.sweep, 1, None)
    assert expected.hours is None and expected.cost is None and expected.trials == 4


def test_hours_are_shared_by_trials_at_the_same_time_and_dollars_are_not():
    recipe = recipe_with({"price_per_hour": 2.0, "num_workers": 4}, num_samples=8, scheduler="fifo", max_steps=100)
    alone, together = (estimate(recipe, recipe.sweep, concurrent, 9.0) for concurrent in (1, 4))
    assert alone.hours == pytest.approx(8 * 100 * 9 / 3600) and together.hours == pytest.approx(alone.hours / 4)
    assert alone.cost == together.cost == pytest.approx(alone.hours * 4 * 2.0)


def test_a_budget_is_never_exceeded():
    recipe = recipe_with({"price_per_hour": 2.0}, num_samples=100, max_hours=0.5, max_cost=0.25)
    expected = estimate(recipe, recipe.sweep, 1, 60.0)
    assert (expected.hours, expected.cost) == (0.5, 0.25)


def test_a_grid_has_its_points_and_the_recipes_own_values():
    recipe = recipe_with(search="grid", space=SPACE, num_samples=2)
    assert trials_of(recipe.sweep, recipe.train) == 7
    bare = recipe_with(search="grid", space=SPACE, default_trial=False)
    assert trials_of(bare.sweep, bare.train) == 6


def test_further_seeds_are_whole_trials_more():
    plain, confirmed = (recipe_with(num_samples=4, confirm_seeds=seeds) for seeds in (0, 2))
    before, after = (estimate(recipe, recipe.sweep, 1, None) for recipe in (plain, confirmed))
    assert after.steps - before.steps == 3 * 2 * plain.sweep.max_steps and after.trials == 10


def test_the_speed_is_the_median_of_earlier_sweeps_over_the_same_base(workspace):
    assert measured_seconds_per_step(workspace, recipe_with()) is None
    write(workspace, halving(train={"method": "lora"}))
    assert measured_seconds_per_step(workspace, recipe_with()) == pytest.approx(2.5)
    assert measured_seconds_per_step(workspace, recipe_with(base="example/other")) is None
    of_all_weights = recipe_with().model_copy(update={"train": Train(method="full")})
    assert measured_seconds_per_step(workspace, of_all_weights) is None


def test_without_a_sweep_the_speed_is_that_of_trainings(workspace):
    from tests.ui.panel.seed import make_report, resolved_recipe

    figures = {"steps": 40, "step_seconds": 60.0}
    workspace.save_report(make_report("train", [], recipe=resolved_recipe(), figures=figures))
    assert measured_seconds_per_step(workspace, recipe_with()) == pytest.approx(1.5)
