import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.experimentation.adjustment import adjust, paired_of
from serve.experimentation.arms import arm_of, difference, standard_error, z_score
from serve.experimentation.sequential import Plan, critical_z

lists = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=40).map(np.array)


def drawn(chance, n, correlation=0.8, effect=0.0):
    before = chance.standard_normal(n)
    return correlation * before + np.sqrt(1 - correlation**2) * chance.standard_normal(n) + effect, before


@settings(deadline=None)
@given(lists, lists)
def test_the_adjusted_sums_are_those_of_the_adjusted_units(control, treated):
    found = adjust(paired_of(*control.T), paired_of(*treated.T))
    centre = np.concatenate([control, treated])[:, 1].mean()
    for rows, arm in ((control, found.control), (treated, found.treated)):
        values = rows[:, 0] - found.theta * (rows[:, 1] - centre)
        assert arm.n == len(values)
        assert arm.total == pytest.approx(values.sum(), abs=1e-6)
        assert arm.squares == pytest.approx(np.square(values).sum(), abs=1e-6)


def test_theta_is_the_slope_within_the_arms():
    chance = np.random.default_rng(0)
    (control, before), (treated, earlier) = drawn(chance, 300), drawn(chance, 200, effect=3.0)
    found = adjust(paired_of(control, before), paired_of(treated, earlier))
    # Least squares with a mean for each arm.
    arm = np.repeat([0.0, 1.0], [300, 200])
    columns = np.column_stack([np.concatenate([before, earlier]), arm, 1 - arm])
    slope = np.linalg.lstsq(columns, np.concatenate([control, treated]), rcond=None)[0][0]
    assert found.theta == pytest.approx(slope)


def test_the_variance_falls_by_the_squared_correlation():
    chance = np.random.default_rng(1)
    control, treated = drawn(chance, 20_000), drawn(chance, 20_000, effect=0.5)
    found = adjust(paired_of(*control), paired_of(*treated))
    assert found.reduction == pytest.approx(0.64, abs=0.01)
    ratio = standard_error(found.control, found.treated, "mean") / standard_error(
        arm_of(control[0]), arm_of(treated[0]), "mean"
    )
    assert ratio**2 == pytest.approx(1 - found.reduction, abs=0.001)
    assert difference(found.control, found.treated) == pytest.approx(0.5, abs=0.03)


@settings(deadline=None)
@given(lists, lists, st.floats(-100, 100))
def test_where_the_covariate_begins_does_not_matter(control, treated, origin):
    moved = [rows + np.array([0.0, origin]) for rows in (control, treated)]
    plain, shifted = (adjust(*(paired_of(*rows.T) for rows in pair)) for pair in ((control, treated), moved))
    if min(control[:, 1].std(), treated[:, 1].std()) > 0.1:
        assert difference(shifted.control, shifted.treated) == pytest.approx(
            float(difference(plain.control, plain.treated)), abs=1e-6
        )
        assert shifted.reduction == pytest.approx(float(plain.reduction), abs=1e-6)


def test_a_covariate_that_never_varies_changes_nothing():
    values = np.random.default_rng(2).normal(size=50)
    found = adjust(paired_of(values, np.ones(50)), paired_of(values + 1, np.ones(50)))
    assert found.theta == 0 and found.reduction == 0
    assert difference(found.control, found.treated) == pytest.approx(1)


def test_it_raises_no_false_positives_and_finds_more():
    # At one look the boundary of 3.04 standard errors is passed by .24 % of 600: more than 6 times once in a thousand.
    chance = np.random.default_rng(3)
    plan, false, plain, adjusted = Plan(400), 0, 0, 0
    for _ in range(600):
        for effect in (0.0, 0.3):
            pairs = [drawn(chance, 200, effect=shift) for shift in (0.0, effect)]
            found = adjust(*(paired_of(*pair) for pair in pairs))
            beyond = abs(z_score(found.control, found.treated, "mean")) >= critical_z(plan, 400)
            if effect:
                adjusted += beyond
                plain += abs(z_score(*(arm_of(pair[0]) for pair in pairs), "mean")) >= critical_z(plan, 400)
            else:
                false += beyond
    assert false <= 6 and adjusted > 1.5 * plain


def test_values_without_their_covariates_are_our_own_mistake():
    with pytest.raises(AssertionError, match="3 values beside 2"):
        paired_of(np.zeros(3), np.zeros(2))
