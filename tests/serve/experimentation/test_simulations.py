"""The quick form of tests/benchmarks/experiment_statistics.py, whose full form has 2,000 runs a cell."""

import pytest

from serve.experimentation.power import of_means, of_proportions, sequential_units
from tests.benchmarks.experiment_statistics import (
    HABITS,
    MEANS,
    RATES,
    SHARES,
    accepted,
    adjusted_shows,
    binary,
    correlated,
    false_harm,
    fixed_power_of,
    hundred_together,
    lognormal,
    normal,
    safe_test_shows,
    turns_as_units,
    watched,
    welch,
)

pytestmark = pytest.mark.slow

RUNS = 200
ALARMS = accepted(0.05, RUNS)
"""10 %: of 200 runs, what a true 5 % exceeds once in a thousand times. The full form accepts 6 %."""


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("rate", RATES)
def test_a_look_at_every_unit_raises_no_more_false_positives_than_alpha(rate, share):
    # At 1 % and 95/5 the small arm has its five successes after some 10,000 units.
    assert watched(binary(rate, rate), share, RUNS, planned=10_000 if rate == 0.01 else 3000).shown <= ALARMS


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("draw", MEANS.values(), ids=MEANS)
def test_so_it_is_for_means_however_skewed_or_seldom(draw, share):
    # Five hundred units in the smaller arm.
    assert watched(draw, share, RUNS, kind="mean", planned=round(500 / share)).shown <= ALARMS


def test_a_hundred_units_together_and_each_arms_own_error_are_too_few_for_means():
    found = watched(lognormal, 0.05, RUNS, kind="mean", planned=2000, rule=hundred_together, error=welch)
    assert found.shown > 0.12


def test_an_error_of_each_arms_own_raises_false_positives_of_what_is_seldom():
    found = watched(binary(0.01, 0.01), 0.1, RUNS, kind="mean", planned=10_000, rule=hundred_together, error=welch)
    assert found.shown > 0.2


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(("control", "treated"), [(0.02, 0.06), (0.5, 0.6), (0.3, 0.1)])
def test_the_interval_holds_the_truth_when_stopped_and_at_every_look(control, treated, share):
    found = watched(binary(control, treated), share, RUNS, truth=treated - control, planned=3000)
    assert found.missed <= ALARMS and found.ever_missed <= ALARMS


def test_the_pooled_error_would_make_the_interval_too_narrow_where_the_arms_are_unequal():
    found = watched(binary(0.05, 0.3), 0.05, RUNS, truth=0.25, planned=5000)
    assert found.ever_missed_pooled > 0.2 > found.ever_missed


@pytest.mark.parametrize("share", SHARES)
def test_a_guardrail_at_its_margin_is_seldom_called_harmed(share):
    assert false_harm(0.1, 0.02, share, RUNS, planned=3000) <= ALARMS


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
def test_the_adjustment_keeps_the_level(habit, share):
    # Five hundred units in the smaller arm.
    assert adjusted_shows(habit, share, RUNS, planned=round(500 / share)) <= ALARMS


def test_the_adjustment_shows_with_fewer_units_what_takes_more_without_it():
    planned = sequential_units(of_means(0.2, 0.8))
    assert planned < 0.65 * sequential_units(of_means(0.2, 1.0))
    # As below, of 1,000 runs.
    assert adjusted_shows(correlated(0.6), 0.5, 1000, planned=planned, shift=0.2) == pytest.approx(
        0.8, abs=0.02 + 3.1 * 0.0126
    )


@pytest.mark.parametrize("share", SHARES)
def test_the_power_of_the_sequence_is_the_formulas(share):
    # Two points are accepted, and 3.1 standard errors of 1,000 runs, which are 1.3 points each.
    effect = of_proportions(0.3, 0.38, share)
    found = watched(binary(0.3, 0.38), share, 1000, planned=sequential_units(effect), seed=7).shown
    assert found == pytest.approx(0.8, abs=0.02 + 3.1 * 0.0126)


def test_the_power_of_one_test_is_the_formulas():
    # As above, of 4,000 runs.
    slack = 0.02 + 3.1 * 0.0063
    for share in (0.5, 0.1):
        found = fixed_power_of(binary(0.3, 0.4), of_proportions(0.3, 0.4, share), share, 4000, "binary")
        assert found == pytest.approx(0.8, abs=slack)
    assert fixed_power_of(normal(0.2), of_means(0.2, 1.0), 0.5, 4000, "mean") == pytest.approx(0.8, abs=slack)


def test_turns_of_one_user_that_count_as_units_are_mistaken_for_evidence():
    found = turns_as_units(400, users=400)
    assert found["turns, one test"] > 0.14 and found["turns, every unit"] > 0.1
    assert found["users, one test"] <= accepted(0.05, 400) and found["users, every unit"] <= accepted(0.05, 400)


def test_the_safe_test_finds_what_is_there():
    assert safe_test_shows(0.3, 0.6, RUNS, blocks=400) > 0.95
