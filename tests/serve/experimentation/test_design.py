"""What is reckoned before the start."""

import pytest

from cluster.errors import UserError
from pipelines.recipe_experiment import Experiment
from serve.experimentation.design import check_can_end, days_for, design_of, size_of


def section(**changes):
    return Experiment.model_validate({"primary": {"metric": "event.resolved"}, "guardrails": []} | changes)


def test_the_size_is_the_recipes_own_or_what_the_effect_takes():
    assert size_of(section(planned_units=700)).planned == 700
    size = size_of(section(effect={"baseline": 0.02, "difference": 0.05}))
    assert size.planned == 871 and size.power == pytest.approx(0.8, abs=0.01)
    assert size.fixed < size.planned and size.expected < size.planned
    mean = {"metric": "event.minutes", "per_unit": "sum"}
    assert size_of(section(primary=mean, effect={"baseline": 9, "difference": 9, "sd": 1})).planned == 200


def test_a_guardrail_that_nothing_could_close_is_told_before_the_start():
    guard = {"metric": "requests.failed", "per_unit": "mean", "margin": 0.01}
    with pytest.raises(UserError, match=r"within its margin of 0\.01 by 1,000 units.*takes 1,788"):
        check_can_end(section(guardrails=[guard], planned_units=1000), 1000)
    # One that runs goes on: what it was started with is not judged again.
    assert design_of(section(guardrails=[guard], planned_units=1000), 1000).planned == 1000
    assert size_of(section(guardrails=[guard], effect={"baseline": 0.02, "difference": 0.05})).planned == 1788


def test_days_count_the_ramp_and_the_coverage():
    whole = section(planned_units=1000)
    assert days_for(whole, size_of(whole), 100) == 10
    half = section(planned_units=1000, coverage=0.5)
    assert days_for(half, size_of(half), 100) == 20
    ramped = section(planned_units=1000, ramp=[0.1, 0.5], ramp_hours=24)
    # Two days of the ramp bring 60 units, and the other 940 come in 9.4 days.
    assert days_for(ramped, size_of(ramped), 100) == 12
    few = section(planned_units=40, settle_hours=48)
    assert days_for(few, size_of(few), 20) == 4
    with pytest.raises(UserError, match="max_days is 60"):
        days_for(whole, size_of(whole), 10)
    with pytest.raises(UserError, match="Without traffic"):
        days_for(whole, size_of(whole), 0)
