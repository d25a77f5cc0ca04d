from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cluster.errors import UserError
from serve.assignment import arm_ranges, choose_arm, choose_covered_arm, place
from tests.benchmarks.experiment_statistics import assignment_p_values

weights = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 10), min_size=1).filter(
    lambda w: sum(w.values()) > 1e-6
)


@pytest.mark.parametrize(
    ("given_weights", "coverage", "expected"),
    [
        ([1, 1], 1, [(0, 0.5), (0.5, 1)]),
        ([1, 1], 0.5, [(0, 0.25), (0.5, 0.75)]),
        ([1, 1], 0, [(0, 0), (0.5, 0.5)]),
        ([1, 1, 1, 1], 1, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], 1, [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], 1, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
        ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
    ],
)
def test_the_ranges_are_growthbooks(given_weights, coverage, expected):
    # The cases of its own SDKs for getBucketRange.
    ranges = arm_ranges(dict(zip("abcd", given_weights, strict=False)), coverage)
    assert list(ranges) == list("abcd"[: len(expected)])
    assert list(ranges.values()) == [pytest.approx(pair) for pair in expected]


@settings(deadline=None)
@given(st.text(), st.text(), weights)
def test_full_coverage_leaves_every_unit_its_arm(seed, unit, given_weights):
    assert choose_covered_arm(seed, unit, given_weights, 1.0) == choose_arm(seed, unit, given_weights)


@settings(deadline=None)
@given(st.text(), weights, st.floats(0, 1), st.floats(0, 1))
def test_more_coverage_brings_units_in_and_moves_none(unit, given_weights, one, other):
    less, more = sorted((one, other))
    before, after = (choose_covered_arm("s", unit, given_weights, coverage) for coverage in (less, more))
    assert before is None or before == after
    assert after in (None, choose_arm("s", unit, given_weights))


@settings(deadline=None)
@given(st.text(), weights)
def test_without_coverage_nobody_is_in(unit, given_weights):
    assert choose_covered_arm("s", unit, given_weights, 0.0) is None


def test_a_range_holds_its_start_and_not_its_end():
    where = place("s", "u")
    assert choose_covered_arm("s", "u", {"a": where, "b": 1 - where}, 0.5) == "b"
    assert choose_covered_arm("s", "u", {"a": 2 * where, "b": 1 - 2 * where}, 0.5) is None


@settings(deadline=None)
@given(weights, st.floats(0, 1))
def test_ranges_do_not_overlap_and_take_the_covered_share(given_weights, coverage):
    ranges = list(arm_ranges(given_weights, coverage).values())
    # Ranges begin and end on places: each may be off by one.
    assert sum(end - start for start, end in ranges) == pytest.approx(coverage, abs=len(ranges) / 10_000)
    for (_, end), (start, _) in pairwise(ranges):
        assert end <= start + 1e-12


@pytest.mark.parametrize("coverage", [-0.1, 1.1, float("nan")])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(UserError, match="coverage is"):
        arm_ranges({"a": 1.0}, coverage)


def test_covered_arms_get_their_share_and_the_rest_is_out():
    arms = [choose_covered_arm("s", f"user{n}", {"base": 0.5, "tuned": 0.5}, 0.1) for n in range(20_000)]
    counts = [arms.count("base"), arms.count("tuned"), arms.count(None)]
    assert chisquare(counts, [1000, 1000, 18_000]).pvalue > 0.001


def test_assignment_is_uniform_and_independent_between_seeds():
    assert {name: p for name, p in assignment_p_values(10_000).items() if p <= 0.001} == {}
