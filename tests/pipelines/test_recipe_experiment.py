"""The recipe's section about experiments: what it refuses, all at once, and what follows from it."""

import pytest
from pydantic import ValidationError

from cluster.errors import UserError
from pipelines.recipe_experiment import Experiment, Measure
from pipelines.recipe_file import dump_recipe, load_recipe

PRIMARY = {"metric": "event.resolved"}


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ({"metric": "resolved"}, "is no metric"),
        ({"metric": "requests.failled"}, "did you mean requests.failed"),
        ({"metric": "feedback.thumb"}, "is no metric"),
        ({"metric": "event.Two Words"}, "lower-case letters"),
        ({"metric": "requests.slow"}, "over_ms goes with requests.slow"),
        ({"metric": "event.x", "over_ms": 5}, "over_ms goes with requests.slow"),
        ({"metric": "event.x", "margin": -1}, "greater than or equal to 0"),
        ({"metric": "event.x", "margin": float("nan")}, "finite|greater than"),
    ],
)
def test_a_metric_that_is_none_is_refused(metric, told):
    with pytest.raises(ValidationError, match=told):
        Measure.model_validate(metric)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({}, "give planned_units or effect"),
        ({"planned_units": 500, "effect": {"baseline": 0.1, "difference": 0.1}}, "give planned_units or effect"),
        ({"planned_units": 500, "weights": {"base": 1}}, "tuned needs a weight"),
        ({"planned_units": 500, "weights": {"base": 1, "tuned": 0}}, "tuned needs a weight"),
        ({"planned_units": 500, "guardrails": [PRIMARY]}, "event.resolved is named twice"),
        ({"planned_units": 500, "ramp": [0.5, 0.1]}, "above the one before"),
        ({"planned_units": 500, "ramp": [0.5], "coverage": 0.5}, "above the one before"),
        ({"effect": {"baseline": 0.1, "difference": 0}}, "difference of zero"),
        ({"effect": {"baseline": 0.9, "difference": 0.2}}, "shares between 0 and 1"),
        ({"primary": PRIMARY | {"per_unit": "sum"}, "effect": {"baseline": 1, "difference": 1}}, "sd is needed"),
        ({"planned_units": 500, "coverage": 0.001, "weights": {"base": 95, "tuned": 5}}, "not a whole number"),
        ({"planned_units": 500, "coverage": 0}, "greater than 0"),
        ({"planned_units": 5}, "greater than or equal to 8"),
        ({"planned_units": 50}, "fewer than 100 need settle_hours"),
        ({"planned_units": 100, "settle_hours": 1}, "settle_hours: goes with planned_units below 100"),
        ({"effect": {"baseline": 0.1, "difference": 0.1}, "settle_hours": 1}, "goes with planned_units below 100"),
        ({"planned_units": 50, "settle_hours": 1, "primary": PRIMARY | {"per_unit": "sum"}}, "`per_unit: any`"),
        ({"planned_units": 50, "settle_hours": 240, "max_days": 10}, "are not over within max_days"),
        ({"planned_units": 500, "before_days": 7}, "explains a sum or a mean"),
        ({"planned_units": 500, "control": "other"}, "'base' or 'tuned'"),
    ],
)
def test_a_section_that_cannot_decide_is_refused(section, told):
    with pytest.raises(ValidationError, match=told):
        Experiment.model_validate({"primary": PRIMARY} | section)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValidationError) as refused:
        Experiment.model_validate({"primary": PRIMARY, "weights": {"base": 1}, "ramp": [0.5, 0.1]})
    told = str(refused.value)
    assert "needs a weight" in told and "planned_units or effect" in told and "above the one before" in told


def test_what_is_good_follows_from_the_metric_unless_it_is_said():
    def upwards(metric, **said):
        return Measure.model_validate({"metric": metric} | said).good_upwards

    assert upwards("event.resolved") and upwards("feedback.thumb_up")
    assert not upwards("feedback.flag") and not upwards("requests.cut")
    assert not upwards("event.complaint", higher_is_better=False)


@pytest.mark.parametrize("kept", [True, "masked"])
def test_edits_are_measured_of_answers_that_are_kept(recipe_file, kept):
    experiment = {"primary": {"metric": "feedback.edited", "per_unit": "mean"}, "planned_units": 500}
    assert not load_recipe(
        recipe_file(experiment=experiment, serve={"log_prompts": kept})
    ).experiment.primary.good_upwards
    with pytest.raises(UserError, match="needs answers to compare with"):
        load_recipe(recipe_file(experiment=experiment, serve={"log_prompts": False}))


def test_a_recipe_keeps_its_experiment_through_a_dump(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file(experiment={"primary": PRIMARY, "planned_units": 2000, "ramp": [0.1]}))
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path).experiment == recipe.experiment
    assert load_recipe(path, ["experiment.coverage=0.5"]).experiment.coverages == (0.1, 0.5)
    with pytest.raises(UserError, match=r"experiment.*planed_units.*did you mean planned_units"):
        load_recipe(path, ["experiment.planed_units=2"])
