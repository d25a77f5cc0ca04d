import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cluster.errors import UserError
from serve.experimentation.sample_ratio import check_sample_ratio
from tests.benchmarks.experiment_statistics import SHARES, accepted, ratio_alarms

EVEN = {"base": 1.0, "tuned": 1.0}


def test_a_published_mismatch_is_found():
    # 821,588 beside 815,482 at 50/50: p = 1.8e-6 (Kohavi, Tang and Xu 2020, chapter 21).
    found = check_sample_ratio({"base": 821_588, "tuned": 815_482}, EVEN)
    assert found.p == pytest.approx(1.8e-6, rel=0.05)
    assert found.mismatch and found.short == "tuned"
    assert "arm tuned has 815482 units where its weight promises 818535" in found.sentence


@settings(deadline=None)
@given(st.lists(st.integers(50, 5000), min_size=3, max_size=3), st.lists(st.floats(0.1, 1), min_size=3, max_size=3))
def test_p_is_pearsons(counts, weights):
    arms = dict(zip("abc", counts, strict=True)), dict(zip("abc", weights, strict=True))
    expected = [sum(counts) * weight / sum(weights) for weight in weights]
    if min(expected) >= 5:
        found = check_sample_ratio(*arms)
        assert found.p == pytest.approx(chisquare(counts, expected).pvalue, abs=1e-12)
        assert found.mismatch == (found.p < 0.001)
        assert found.mismatch == (found.short is not None)


@settings(deadline=None)
@given(st.floats(0.01, 100))
def test_only_the_ratio_of_the_weights_counts(factor):
    counts = {"a": 700, "b": 200, "c": 100}
    weights = {"a": 7.0, "b": 2.0, "c": 1.5}
    scaled = {arm: weight * factor for arm, weight in weights.items()}
    assert check_sample_ratio(counts, scaled).p == pytest.approx(check_sample_ratio(counts, weights).p)


def test_of_several_arms_the_one_that_lacks_most_is_named():
    # c lacks a third of its units, a hardly any; in plain numbers they lack the same.
    found = check_sample_ratio({"a": 8950, "b": 1100, "c": 100, "d": 0}, {"a": 0.89, "b": 0.095, "c": 0.015, "d": 0.0})
    assert found.short == "c" and found.expected["c"] == pytest.approx(152.25)


def test_an_arm_without_weight_must_have_no_units():
    found = check_sample_ratio({"base": 500, "tuned": 500, "old": 3}, EVEN | {"old": 0.0})
    assert found.mismatch and found.p == 0 and found.short in ("base", "tuned")
    assert found.sentence == "units are in arms that have no weight: old has 3"
    assert check_sample_ratio({"base": 500, "tuned": 500, "gone": 1}, EVEN).mismatch
    assert not check_sample_ratio({"base": 500, "tuned": 500, "old": 0}, EVEN | {"old": 0.0}).mismatch


def test_few_units_raise_no_alarm():
    # Three of ten in an arm of 5 %: by chi-squared p < .001, by the binomial distribution 1 %.
    found = check_sample_ratio({"base": 7, "tuned": 3}, {"base": 0.95, "tuned": 0.05})
    assert not found.mismatch and found.p == 1 and "too few" in found.sentence
    assert not check_sample_ratio({}, EVEN).mismatch


def test_one_arm_alone_is_always_right():
    assert not check_sample_ratio({"base": 10_000}, {"base": 1.0, "tuned": 0.0}).mismatch


@pytest.mark.parametrize("weights", [{}, {"base": 0.0}, {"base": 2.0, "tuned": -1.0}])
def test_weights_that_share_out_nothing_are_refused(weights):
    with pytest.raises(UserError, match="share out nothing"):
        check_sample_ratio({"base": 10}, weights)


@pytest.mark.parametrize("share", SHARES)
def test_the_right_ratio_hardly_ever_raises_an_alarm(share):
    # 3,000 experiments: what a true .2 % exceeds once in a thousand times.
    weights = {"base": 1 - share, "tuned": share}
    assert ratio_alarms(weights, 10_000, 3000) <= accepted(0.002, 3000)


def test_a_tenth_of_an_arm_lost_is_found():
    assert check_sample_ratio({"base": 5000, "tuned": 4500}, EVEN).short == "tuned"
