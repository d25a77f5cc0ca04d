"""Packing into bins."""

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
