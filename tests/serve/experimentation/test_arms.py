import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from serve.experimentation.arms import (
    Arm,
    arm_of,
    binary_arm,
    difference,
    is_enough,
    restricted_proportions,
    standard_error,
    z_score,
)

counts = st.tuples(st.integers(1, 5000), st.floats(0, 1)).map(lambda pair: (pair[0], round(pair[0] * pair[1])))


def test_the_sums_give_mean_and_variance():
    values = np.random.default_rng(0).normal(3, 2, 50)
    assert arm_of(values).mean == pytest.approx(values.mean())
    assert arm_of(values).variance == pytest.approx(values.var(ddof=1))


def test_an_arm_without_units_has_no_variance_and_breaks_nothing():
    nothing = Arm(0, 0.0, 0.0)
    assert nothing.mean == 0 and nothing.variance == 0
    assert z_score(nothing, nothing, "mean") == 0 and z_score(nothing, nothing, "binary") == 0


@pytest.mark.parametrize("sizes", [(30, 90), (90, 30), (60, 60)])
def test_the_standard_error_of_means_is_welchs_or_that_of_one_variance(sizes):
    one, two = np.random.default_rng(1).normal(0, 1, sizes[0]), np.random.default_rng(2).normal(0, 5, sizes[1])
    n, m = sizes
    welch = one.var(ddof=1) / n + two.var(ddof=1) / m
    common = ((n - 1) * one.var(ddof=1) + (m - 1) * two.var(ddof=1)) / (n + m - 2) * (1 / n + 1 / m)
    assert standard_error(arm_of(one), arm_of(two), "mean") == pytest.approx(np.sqrt(max(welch, common)))
    # Student's is the larger where the smaller arm varies less.
    assert (common > welch) == (n < m) or common == pytest.approx(welch)


def test_z_of_proportions_is_the_root_of_pearsons_chi_squared():
    from scipy.stats import chi2_contingency

    z = z_score(binary_arm(200, 20), binary_arm(300, 51), "binary")
    assert z**2 == pytest.approx(chi2_contingency([[20, 180], [51, 249]], correction=False).statistic)


def test_the_restricted_proportions_are_farrington_and_mannings():
    # Their closed form against the likelihood's maximum, found by search.
    chance = np.random.default_rng(3)
    for _ in range(200):
        n, m = chance.integers(5, 2000, 2)
        x, y, shift = chance.integers(1, n), chance.integers(1, m), chance.uniform(-0.9, 0.9)

        def unlikely(high, n=n, m=m, x=x, y=y, shift=shift):
            low = high - shift
            return -(y * np.log(high) + (m - y) * np.log1p(-high) + x * np.log(low) + (n - x) * np.log1p(-low))

        ends = max(shift, 0), min(1 + shift, 1)
        best = minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-9}).x
        low, high = restricted_proportions(binary_arm(n, x), binary_arm(m, y), shift)
        assert high == pytest.approx(best, abs=1e-6) and high - low == pytest.approx(shift)


@settings(deadline=None)
@given(counts, counts, st.floats(-1, 1))
def test_restricted_proportions_are_proportions_that_differ_by_the_shift(control, treated, shift):
    low, high = restricted_proportions(binary_arm(*control), binary_arm(*treated), shift)
    assert -1e-12 <= low <= 1 + 1e-12 and 0 <= high <= 1
    assert high - low == pytest.approx(shift, abs=1e-9)


# A shift of a billionth beside no success at all is lost in the rounding of the cubic's root.
shifts = st.one_of(st.just(0.0), st.floats(1e-4, 0.9), st.floats(-0.9, -1e-4))


@settings(deadline=None)
@given(counts, counts, shifts)
def test_swapping_the_arms_flips_the_sign(control, treated, shift):
    one, two = binary_arm(*control), binary_arm(*treated)
    for kind in ("binary", "mean"):
        assert difference(one, two) == -difference(two, one)
        there, back = z_score(one, two, kind, shift), z_score(two, one, kind, -shift)
        assert there == pytest.approx(-back, rel=1e-5, abs=1e-6)


def test_a_shift_as_large_as_the_difference_takes_each_arms_own_variance():
    one, two = binary_arm(500, 50), binary_arm(100, 30)
    own = np.sqrt(0.1 * 0.9 / 500 + 0.3 * 0.7 / 100)
    assert standard_error(one, two, "binary", 0.2) == pytest.approx(own)
    assert standard_error(one, two, "binary") < own


def test_what_never_varies_is_either_equal_or_infinitely_far():
    same = Arm(200, 200.0, 200.0)
    assert z_score(same, same, "mean") == 0
    assert z_score(same, Arm(200, 400.0, 800.0), "mean") == np.inf
    assert z_score(Arm(200, 400.0, 800.0), same, "mean") == -np.inf


@pytest.mark.parametrize(
    ("control", "treated", "enough"),
    [
        ((50, 10), (50, 10), True),
        ((50, 10), (49, 10), False),
        ((500, 4), (500, 5), False),
        ((500, 5), (500, 5), True),
        ((500, 0), (500, 10), True),
        ((500, 495), (500, 496), False),
        ((500, 500), (500, 0), True),
        ((950, 50), (50, 40), False),
        ((900, 0), (100, 50), True),
        ((0, 0), (500, 50), False),
    ],
)
def test_proportions_need_a_hundred_units_together_and_five_of_each_outcome_due_in_each_arm(control, treated, enough):
    assert is_enough(binary_arm(*control), binary_arm(*treated), "binary") == enough


@pytest.mark.parametrize(("n", "m", "enough"), [(100, 100, True), (99, 5000, False), (5000, 99, False)])
def test_means_need_a_hundred_units_in_each_arm(n, m, enough):
    assert is_enough(Arm(n, 1.0, 1.0), Arm(m, 1.0, 1.0), "mean") == enough


def test_a_mean_of_figures_that_were_all_the_same_is_not_known_without_error():
    varied, constant = Arm(200, 1.0, 1.0), Arm(200, 0.0, 0.0)
    assert not is_enough(varied, constant, "mean") and not is_enough(constant, varied, "mean")
    assert is_enough(varied, varied, "mean")
