import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cluster.errors import UserError
from serve.experimentation.power import (
    crossing,
    days,
    fixed_power,
    fixed_units,
    of_means,
    of_proportions,
    sequential_power,
    sequential_stop,
    sequential_units,
)

pytestmark = pytest.mark.slow

rates = st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98)).filter(lambda pair: abs(pair[0] - pair[1]) > 0.02)
shares = st.floats(0.05, 0.95)


def test_proportions_agree_with_rs_power_prop_test():
    # The examples of its manual: p1 = .50, p2 = .75, power .90 needs n = 76.7 in each; n = 50 has power .740.
    effect = of_proportions(0.5, 0.75)
    assert fixed_units(effect, 0.9) == math.ceil(2 * 76.65)
    assert fixed_power(effect, 100) == pytest.approx(0.740, abs=5e-4)


@settings(deadline=None)
@given(rates, shares, st.floats(0.5, 0.99))
def test_proportions_are_fleiss_levin_and_paiks_for_unequal_arms(pair, share, power):
    one, two = pair
    ratio = share / (1 - share)
    mean = (one + ratio * two) / (1 + ratio)
    first = norm.ppf(0.975) * math.sqrt((ratio + 1) * mean * (1 - mean))
    second = norm.ppf(power) * math.sqrt(ratio * one * (1 - one) + two * (1 - two))
    control = (first + second) ** 2 / (ratio * (two - one) ** 2)
    assert fixed_units(of_proportions(one, two, share), power) == pytest.approx(control * (1 + ratio), abs=1.01)


def test_means_are_the_textbooks():
    # 2 (1.959964 + 1.281552)^2 = 21.0148 in each arm for a difference of one standard deviation and power .9.
    assert fixed_units(of_means(1.0, 1.0), 0.9) == math.ceil(2 * 21.0148)
    # Variances 1 / .8 + 4 / .2 = 21.25, times (1.959964 + .841621)^2 = 7.848880.
    assert fixed_units(of_means(1.0, 1.0, 0.2, treated_sd=2.0)) == math.ceil(21.25 * 7.848880)


@settings(deadline=None)
@given(rates, shares, st.floats(0.3, 0.99), st.sampled_from([0.01, 0.05, 0.1]))
def test_the_power_at_the_units_of_a_power_is_that_power(pair, share, power, alpha):
    effect = of_proportions(*pair, share)
    needed = fixed_units(effect, power, alpha)
    assert fixed_power(effect, needed, alpha) >= power - 1e-9
    assert fixed_power(effect, needed - 1, alpha) < power + 1e-9


@settings(max_examples=8, deadline=None)
@given(rates, shares, st.sampled_from([0.7, 0.8, 0.9]))
def test_so_it_is_for_the_sequence(pair, share, power):
    effect = of_proportions(*pair, share)
    needed = sequential_units(effect, power)
    assert sequential_power(effect, needed) >= power - 1e-5
    assert sequential_power(effect, needed - 1) < power + 1e-5
    # Where pooling understates the variance, many looks may be worth more than one.
    assert needed > fixed_units(effect, power) or effect.reckoned_sd < effect.true_sd


@settings(deadline=None)
@given(rates, shares)
def test_which_arm_is_the_better_does_not_matter(pair, share):
    one, two = pair
    there, back = of_proportions(one, two, share), of_proportions(two, one, 1 - share)
    assert fixed_units(there) == pytest.approx(fixed_units(back), abs=1)


def test_a_smaller_difference_a_larger_power_and_unequal_arms_take_more():
    for units in (fixed_units, sequential_units):
        assert units(of_proportions(0.1, 0.12)) < units(of_proportions(0.1, 0.11))
        assert units(of_proportions(0.1, 0.12), 0.8) < units(of_proportions(0.1, 0.12), 0.9)
        assert units(of_proportions(0.1, 0.12), 0.8, 0.05) < units(of_proportions(0.1, 0.12), 0.8, 0.01)
        assert units(of_means(0.1, 1.0)) < units(of_means(0.1, 1.0, 0.1)) == units(of_means(0.1, 1.0, 0.9))


def test_without_a_difference_the_sequence_is_left_less_often_than_alpha():
    for alpha in (0.01, 0.05, 0.1):
        shown, ends = crossing(0.0, alpha)
        assert 0.2 * alpha < shown < 0.5 * alpha and 0.97 < ends <= 1


def test_to_be_watched_costs_units_and_a_larger_effect_ends_it_sooner():
    effect = of_proportions(0.10, 0.12)
    planned = sequential_units(effect)
    assert 1.5 * fixed_units(effect) < planned < 1.8 * fixed_units(effect)
    assert sequential_stop(effect, planned) < 0.7 * planned
    assert sequential_stop(of_proportions(0.10, 0.14), planned) < 0.3 * planned


def test_it_crosses_at_least_as_often_as_at_the_end_alone():
    from serve.experimentation.sequential import Plan, critical_z

    for drift in (1.0, 2.0, 3.0, 4.0):
        assert crossing(drift)[0] > norm.cdf(drift - float(critical_z(Plan(1000), 1000)))


def test_days_are_whole_days():
    assert days(1000, 250) == 4 and days(1001, 250) == 5 and days(10, 1e6) == 1


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: of_proportions(0.1, 0.1), "a difference of zero"),
        (lambda: of_proportions(0.0, 0.1), "not proportions"),
        (lambda: of_proportions(10.0, 12.0), "not proportions"),
        (lambda: of_proportions(0.1, 0.2, 1.0), "no share"),
        (lambda: of_means(0.0, 1.0), "a difference of zero"),
        (lambda: of_means(1.0, 0.0), "do not vary"),
        (lambda: of_means(1.0, 1.0, 0.0), "no share"),
        (lambda: fixed_units(of_means(1.0, 1.0), 1.0), "cannot be had"),
        (lambda: sequential_units(of_means(1.0, 1.0), 0.8, 0.0), "cannot be had"),
        (lambda: days(10, 0), "Without traffic"),
    ],
)
def test_what_cannot_be_planned_is_refused(ask, told):
    with pytest.raises(UserError, match=told):
        ask()
