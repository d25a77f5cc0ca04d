import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.experimentation.safe_test import (
    PRIOR,
    Blocks,
    blocks_of,
    log_e_values,
    p_value_now,
    units_of_a_safe_test,
)
from tests.benchmarks.experiment_statistics import RATES, accepted, safe_test_shows


def blocks(*rows):
    """(control n, control successes, treated n, treated successes) of each block."""
    return Blocks(*np.array(rows).T)


def by_hand(rows, prior=PRIOR):
    """The e-value, one factor at a time."""
    e, seen = 1.0, [0, 0, 0, 0]
    for n, x, m, y in rows:
        low = (seen[1] + prior) / (seen[0] + 2 * prior)
        high = (seen[3] + prior) / (seen[2] + 2 * prior)
        same = (n * low + m * high) / (n + m)
        e *= (low / same) ** x * ((1 - low) / (1 - same)) ** (n - x)
        e *= (high / same) ** y * ((1 - high) / (1 - same)) ** (m - y)
        seen = [sum(pair) for pair in zip(seen, (n, x, m, y), strict=True)]
    return e


block = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8), st.integers(0, 8)).map(
    lambda row: (row[0], min(row[0], row[1]), row[2], min(row[2], row[3]))
)


@settings(deadline=None)
@given(st.lists(block, min_size=1, max_size=30))
def test_the_e_value_is_the_product_of_the_blocks_likelihood_ratios(rows):
    assert np.exp(log_e_values(blocks(*rows))[-1]) == pytest.approx(by_hand(rows))


def test_the_first_block_says_nothing_and_the_second_what_the_first_taught():
    # Before the second: .18 / 1.36 and 1.18 / 1.36; their mean is one half.
    assert np.exp(log_e_values(blocks((1, 0, 1, 1), (1, 0, 1, 1)))) == pytest.approx([1, (1.18 / 0.68) ** 2])


@settings(deadline=None)
@given(st.lists(block, min_size=1, max_size=30))
def test_swapping_arms_or_outcomes_changes_no_evidence(rows):
    plain = log_e_values(blocks(*rows))
    assert log_e_values(blocks(*[(m, y, n, x) for n, x, m, y in rows])) == pytest.approx(plain)
    assert log_e_values(blocks(*[(n, n - x, m, m - y) for n, x, m, y in rows])) == pytest.approx(plain)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.floats(0.02, 0.98), st.lists(block, max_size=5))
def test_without_a_difference_a_further_block_multiplies_by_one_at_most_on_average(n, m, rate, earlier):
    from scipy.stats import binom

    before = log_e_values(blocks(*earlier))[-1] if earlier else 0.0
    mean = sum(
        binom.pmf(x, n, rate)
        * binom.pmf(y, m, rate)
        * np.exp(log_e_values(blocks(*earlier, (n, x, m, y)))[-1] - before)
        for x in range(n + 1)
        for y in range(m + 1)
    )
    assert mean <= 1 + 1e-9


def test_a_block_of_one_arm_alone_is_no_evidence_but_is_learnt_from():
    after = [(1, 0, 1, 1), (3, 2, 4, 1)]
    assert log_e_values(blocks((3, 1, 0, 0), *after))[0] == 0
    assert log_e_values(blocks((3, 1, 0, 0), *after))[-1] != pytest.approx(log_e_values(blocks(*after))[-1])
    assert log_e_values(blocks((0, 0, 0, 0), *after))[-1] == pytest.approx(log_e_values(blocks(*after))[-1])


def test_it_finds_a_large_difference_among_few_units_before_the_confidence_sequence_may_speak():
    assert safe_test_shows(0.1, 0.9, 200, blocks=40) > 0.95


def test_more_successes_than_units_are_our_own_mistake():
    with pytest.raises(AssertionError, match="more successes than units"):
        blocks((1, 2, 1, 0))


@pytest.mark.parametrize("sizes", [(1, 1), (9, 1)])
@pytest.mark.parametrize("rate", RATES)
def test_no_difference_is_shown_in_at_most_one_of_twenty_streams(rate, sizes):
    # 500 streams: what a true 5 % exceeds once in a thousand times.
    assert safe_test_shows(rate, rate, 500, sizes=sizes, blocks=300) <= accepted(0.05, 500)


def test_a_block_is_closed_as_soon_as_both_arms_have_a_unit_in_it():
    units = [(False, True), (True, False), (True, True), (True, False), (False, False), (False, True)]
    found = blocks_of(units)
    assert list(zip(*vars(found).values(), strict=True)) == [(1, 1, 1, 0), (1, 0, 2, 1), (1, 1, 0, 0)]
    assert (found.control.n, found.control.total, found.treated.n, found.treated.total) == (3, 2, 3, 1)
    # What waits for the other arm is no evidence yet.
    assert log_e_values(found)[-1] == log_e_values(found)[-2]
    assert len(blocks_of([])) == 0 and blocks_of([]).control.n == 0


def test_the_units_that_show_the_largest_difference_come_in_blocks_of_the_weights():
    assert units_of_a_safe_test([1, 1], 0.05) == 8 and units_of_a_safe_test([0.5, 0.5], 0.05) == 8
    assert units_of_a_safe_test([0.9, 0.1], 0.05) == units_of_a_safe_test([1, 9], 0.05) == 30
    assert units_of_a_safe_test([1, 1], 0.001) > 8 and units_of_a_safe_test([1, 0], 0.05) == 0


def test_p_now_rises_again_where_later_units_take_back_what_the_first_ones_said():
    first = [(1, 0, 1, 1)] * 5
    assert p_value_now(blocks(*first)) == pytest.approx(1 / by_hand(first))
    assert p_value_now(blocks(*first)) < 0.05
    assert p_value_now(blocks(*first, *[(1, 1, 1, 0)] * 5)) > 0.05
    assert p_value_now(blocks_of([])) == 1.0


def test_units_that_come_by_chance_make_blocks_that_keep_the_level():
    chance, shown = np.random.default_rng(8), 0
    for _ in range(500):
        treated = chance.random(99) < 0.3
        found = blocks_of(zip(treated, chance.random(99) < 0.4, strict=True))
        shown += bool(log_e_values(found).max() >= np.log(20))
    assert shown / 500 <= accepted(0.05, 500)
