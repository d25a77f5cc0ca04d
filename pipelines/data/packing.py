"""Packing encoded examples into bins of a fixed capacity, and the order in which bins are read. Pure."""

import bisect
import random
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of example numbers; best-fit decreasing (at most 11/9 of the least number of bins, Johnson 1974).

    Every example stands in exactly one bin and no bin holds more than `capacity` tokens. Raises ValueError
    for an example that fits in none.
    """
    if any(length > capacity for length in lengths):
        raise ValueError(f"an example of {max(lengths)} tokens fits no bin of {capacity}")
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for example in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[example]
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            bins.append([example])
            left, number = capacity - length, len(bins) - 1
        else:
            left, number = room.pop(place)
            bins[number].append(example)
            left -= length
        if left:
            bisect.insort(room, (left, number))
    return bins


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count` in an order that the seed and the epoch alone decide."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def positions(lengths: Sequence[int]) -> list[int]:
    """Position ids of a bin: each example counts from 0, which is what keeps them from seeing each other."""
    return [position for length in lengths for position in range(length)]
