import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.experimentation.arms import Arm, binary_arm, difference, standard_error, z_score
from serve.experimentation.sequential import Plan, bound, critical_z, interval, p_value, rho_squared, running_p

PLAN = Plan(1000, 0.05)
units = st.integers(20, 20_000)
binary_arms = st.tuples(st.integers(20, 20_000), st.floats(0.05, 0.95)).map(
    lambda pair: binary_arm(pair[0], round(pair[0] * pair[1]))
)
mean_arms = st.builds(
    lambda n, mean, sd: Arm(n, n * mean, (n - 1) * sd**2 + n * mean**2), units, st.floats(-3, 3), st.floats(0.1, 3)
)
either = st.one_of(
    st.tuples(binary_arms, binary_arms, st.just("binary")), st.tuples(mean_arms, mean_arms, st.just("mean"))
)


def test_rho_and_the_boundary_are_the_papers():
    # By hand: -2 ln .05 = 5.991465, ln 6.991465 = 1.944690; over 1,000.
    assert rho_squared(PLAN) == pytest.approx(0.007936155, rel=1e-6)
    # sqrt(2 * 8.936155 / 7.936155 * ln(sqrt(8.936155) / .05)).
    assert critical_z(PLAN, 1000) == pytest.approx(3.035209, rel=1e-6)
    # sqrt(2 * 1.793616 / .793616 * ln(sqrt(1.793616) / .05)).
    assert critical_z(PLAN, 100) == pytest.approx(3.855055, rel=1e-6)


def test_the_one_sided_form_is_the_papers():
    # By hand: -2 ln .1 = 4.605170, ln 5.605170 = 1.723690; sqrt(2 * 7.328860 / 6.328860 * ln(1 + 2.707187 / .1)).
    assert rho_squared(PLAN, one_sided=True) == pytest.approx(0.00632886, rel=1e-6)
    assert critical_z(PLAN, 1000, one_sided=True) == pytest.approx(2.779094, rel=1e-6)


def test_the_interval_of_means_is_the_formula_as_it_is_written():
    control, treated = Arm(400, 40.0, 404.0), Arm(500, 100.0, 520.0)
    n, rho2, alpha = 900, rho_squared(PLAN), 0.05
    width = math.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    half = float(standard_error(control, treated, "mean")) * math.sqrt(n) * width
    low, high = interval(PLAN, control, treated, "mean")
    assert (low, high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))


def test_with_equal_arms_the_interval_of_proportions_is_nearly_the_pooled_formula():
    control, treated = binary_arm(5000, 500), binary_arm(5000, 550)
    half = float(critical_z(PLAN, 10_000) * standard_error(control, treated, "binary"))
    low, high = interval(PLAN, control, treated, "binary")
    assert (low, high) == (pytest.approx(0.01 - half, abs=2e-4), pytest.approx(0.01 + half, abs=2e-4))


@settings(deadline=None)
@given(either)
def test_the_interval_holds_zero_exactly_where_p_is_above_alpha(arms):
    control, treated, kind = arms
    low, high = interval(PLAN, control, treated, kind)
    p = p_value(PLAN, z_score(control, treated, kind), control.n + treated.n)
    if abs(p - PLAN.alpha) > 1e-9:
        assert (low < 0 < high) == (p > PLAN.alpha)


@settings(deadline=None)
@given(either)
def test_at_an_end_of_the_interval_p_is_alpha(arms):
    control, treated, kind = arms
    for end in interval(PLAN, control, treated, kind):
        if abs(end) < 0.999 or kind == "mean":
            p = p_value(PLAN, z_score(control, treated, kind, end), control.n + treated.n)
            assert p == pytest.approx(PLAN.alpha, rel=1e-4)


@settings(deadline=None)
@given(either)
def test_at_a_one_sided_bound_the_one_sided_p_is_alpha(arms):
    control, treated, kind = arms
    for side in (-1, 1):
        end = bound(PLAN, control, treated, kind, side)
        if abs(end) < 0.999 or kind == "mean":
            z = -side * z_score(control, treated, kind, end)
            assert p_value(PLAN, z, control.n + treated.n, one_sided=True) == pytest.approx(PLAN.alpha, rel=1e-4)


@settings(deadline=None)
@given(either)
def test_swapping_the_arms_turns_the_interval_round(arms):
    control, treated, kind = arms
    low, high = interval(PLAN, control, treated, kind)
    assert interval(PLAN, treated, control, kind) == (pytest.approx(-high, abs=1e-6), pytest.approx(-low, abs=1e-6))


@settings(deadline=None)
@given(either)
def test_the_difference_lies_inside_and_one_side_reaches_less_far_than_two(arms):
    control, treated, kind = arms
    low, high = interval(PLAN, control, treated, kind)
    assert low <= difference(control, treated) <= high
    assert bound(PLAN, control, treated, kind, -1) >= low - 1e-12
    assert bound(PLAN, control, treated, kind, 1) <= high + 1e-12


@settings(deadline=None)
@given(mean_arms, mean_arms, st.floats(0.01, 100))
def test_other_units_of_measure_change_no_p(control, treated, factor):
    scaled = [Arm(arm.n, arm.total * factor, arm.squares * factor**2) for arm in (control, treated)]
    z = z_score(control, treated, "mean")
    assert z_score(*scaled, "mean") == pytest.approx(float(z), rel=1e-4, abs=1e-4)


@settings(deadline=None)
@given(binary_arms, binary_arms)
def test_counting_failures_for_successes_flips_the_sign_alone(control, treated):
    turned = [binary_arm(arm.n, arm.n - arm.total) for arm in (control, treated)]
    z = z_score(control, treated, "binary")
    assert z_score(*turned, "binary") == pytest.approx(-float(z), abs=1e-9)


@settings(deadline=None)
@given(st.floats(0, 8), st.floats(0.01, 3), units)
def test_a_larger_difference_has_a_smaller_p(z, more, n):
    for one_sided in (False, True):
        assert p_value(PLAN, z + more, n, one_sided=one_sided) <= p_value(PLAN, z, n, one_sided=one_sided)


@settings(deadline=None)
@given(st.floats(-8, 8), units)
def test_p_is_a_probability_and_the_good_direction_is_no_evidence_of_harm(z, n):
    assert 0 <= p_value(PLAN, z, n) <= 1 and 0 <= p_value(PLAN, z, n, one_sided=True) <= 1
    assert p_value(PLAN, -abs(z), n, one_sided=True) == 1


def test_an_infinite_difference_leaves_no_doubt():
    assert p_value(PLAN, np.inf, 200) == 0 and p_value(PLAN, -np.inf, 200) == 0
    assert p_value(PLAN, np.inf, 200, one_sided=True) == 0


def test_the_boundary_is_lowest_at_the_planned_units():
    looks = np.arange(10, 10_000)
    for one_sided in (False, True):
        lowest = looks[critical_z(PLAN, looks, one_sided=one_sided).argmin()]
        # The paper's rho is the approximate optimum in closed form.
        assert 0.8 * PLAN.units < lowest < 1.25 * PLAN.units


def test_a_smaller_alpha_gives_a_wider_interval():
    arms = binary_arm(400, 40), binary_arm(400, 60)
    wide, narrow = interval(Plan(1000, 0.01), *arms, "binary"), interval(Plan(1000, 0.1), *arms, "binary")
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_looks_may_come_as_arrays():
    control, treated = (
        binary_arm(np.array([100.0, 400.0]), np.array([10.0, 40.0])),
        binary_arm(np.array([120.0, 390.0]), np.array([30.0, 80.0])),
    )
    together = interval(PLAN, control, treated, "binary")
    for look in (0, 1):
        alone = interval(
            PLAN,
            binary_arm(control.n[look], control.total[look]),
            binary_arm(treated.n[look], treated.total[look]),
            "binary",
        )
        assert (together[0][look], together[1][look]) == (pytest.approx(alone[0]), pytest.approx(alone[1]))


def test_the_running_p_never_rises_and_says_nothing_before_enough_is_in():
    n = np.array([40.0, 100.0, 200.0, 400.0])
    control, treated = (
        binary_arm(n, np.array([0.0, 10.0, 40.0, 90.0])),
        binary_arm(n, np.array([40.0, 60.0, 90.0, 95.0])),
    )
    running = running_p(PLAN, control, treated, "binary")
    assert running[0] == 1 and np.all(np.diff(running) <= 0)
    assert running[-1] < p_value(PLAN, z_score(control, treated, "binary"), 2 * n)[-1]


@pytest.mark.parametrize(("planned", "alpha"), [(0, 0.05), (1000, 0.0), (1000, 0.5)])
def test_a_plan_that_cannot_be_is_our_own_mistake(planned, alpha):
    with pytest.raises(AssertionError):
        Plan(planned, alpha)
