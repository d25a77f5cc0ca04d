"""Packing into bins."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data import packing
from pipelines.data.packing import positions, shuffled


def pack(lengths, capacity):
    """The bins as lists."""
    order, held = packing.pack(np.array(lengths, np.int32), capacity)
    assert held.sum() == len(order)
    return [part.tolist() for part in np.split(order, np.cumsum(held)[:-1])] if len(held) else []


LENGTHS = st.lists(st.integers(1, 64), max_size=200)


@given(LENGTHS)
def test_nothing_is_lost_nothing_stands_twice_and_no_bin_overflows(lengths):
    bins = pack(lengths, 64)

    assert sorted(example for group in bins for example in group) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in group) <= 64 for group in bins)


@given(LENGTHS)
def test_no_two_bins_would_fit_into_one(lengths):
    sizes = sorted(sum(lengths[i] for i in group) for group in pack(lengths, 64))

    assert len(sizes) < 2 or sizes[0] + sizes[1] > 64


def test_the_same_lengths_give_the_same_bins():
    assert pack([5, 3, 3, 5], 8) == pack([5, 3, 3, 5], 8) == [[0, 1], [3, 2]]


def test_an_example_that_fits_nowhere_is_an_error():
    with pytest.raises(ValueError, match="65"):
        pack([3, 65], 64)


@given(st.integers(0, 300), st.integers(0, 2**31 - 1), st.integers(0, 5))
def test_an_order_holds_every_bin_once_and_depends_on_seed_and_epoch_alone(count, seed, epoch):
    order = shuffled(count, seed, epoch)

    assert sorted(order) == list(range(count))
    assert order == shuffled(count, seed, epoch)


def test_epochs_have_different_orders():
    assert shuffled(50, 1, 0) != shuffled(50, 1, 1)


def test_positions_restart_at_each_example():
    assert positions([3, 1, 2]) == [0, 1, 2, 0, 0, 1]


@given(LENGTHS)
def test_what_is_filled_as_full_as_it_goes_loses_nothing_either(lengths):
    bin_of = packing.fullest(sorted(lengths, reverse=True), 64).tolist()
    held = Counter()
    for number, length in zip(bin_of, sorted(lengths, reverse=True), strict=True):
        held[number] += length
    assert sorted(held) == list(range(len(held))) and max(held.values(), default=0) <= 64


@pytest.mark.parametrize("capacity", [512, 1024])
def test_at_least_98_of_100_places_are_filled_by_lengths_as_they_come(capacity):
    lengths = np.random.default_rng(5).lognormal(4.9, 0.5, 2_000).clip(20, capacity).astype(int)
    bins = pack(lengths, capacity)
    assert lengths.sum() / (len(bins) * capacity) >= 0.98


def test_bins_that_best_fit_leaves_half_empty_are_filled():
    lengths = [6, 4, 4, 4, 3, 3, 3, 3]
    assert packing.best_fit(lengths, 10).tolist() == [0, 0, 1, 1, 2, 2, 2, 3]
    assert pack(lengths, 10) == [[0, 1], [2, 4, 5], [3, 6, 7]]
