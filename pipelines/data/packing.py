"""Packing encoded examples into bins of a fixed capacity, and the order in which bins are read. Pure."""

import bisect
import heapq
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENOUGH = 0.005
"""Share of empty places that is not worth a second try."""


def pack(lengths: "NDArray[np.integer[Any]]", capacity: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Example numbers, bin after bin, and how many each bin holds.

    Every example stands in exactly one bin and no bin holds more than `capacity` tokens. Best-fit decreasing (at most
    11/9 of the least number of bins, Johnson 1974); where that leaves more than ENOUGH of the places empty, each bin
    filled as full as what is left allows, if those are fewer. Raises ValueError for an example that fits in none.
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"an example of {lengths.max()} tokens fits no bin of {capacity}")
    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    falling = lengths[longest_first].tolist()
    bin_of = best_fit(falling, capacity)
    if sum(falling) < (1 - ENOUGH) * capacity * (bin_of.max(initial=-1) + 1):
        fuller = fullest(falling, capacity)
        if fuller.max() < bin_of.max():
            bin_of = fuller
    return longest_first[np.argsort(bin_of, kind="stable")], np.bincount(bin_of)


def best_fit(falling: Sequence[int], capacity: int) -> "NDArray[np.int64]":
    """The bin of each of the falling lengths: the one with the least room for it, the oldest of several."""
    bin_of = np.empty(len(falling), np.int64)
    count = 0
    # Bins by the room that they have left; rooms holds those of some bin, sorted.
    having: dict[int, list[int]] = {}
    rooms: list[int] = []
    for place, length in enumerate(falling):
        tightest = bisect.bisect_left(rooms, length)
        if tightest == len(rooms):
            number, left = count, capacity - length
            count += 1
        else:
            room = rooms[tightest]
            number, left = heapq.heappop(having[room]), room - length
            if not having[room]:
                del rooms[tightest]
        bin_of[place] = number
        if left:
            waiting = having.setdefault(left, [])
            if not waiting:
                bisect.insort(rooms, left)
            heapq.heappush(waiting, number)
    return bin_of


def fullest(falling: Sequence[int], capacity: int) -> "NDArray[np.int64]":
    """The bin of each of the falling lengths: the longest that is left, and those that fill the rest best.

    Minimum bin slack (Fleszar and Hindi, Computers & Operations Research 29, 2002), exact by a subset sum for each bin.
    """
    places: dict[int, list[int]] = {}
    for place in reversed(range(len(falling))):
        places.setdefault(falling[place], []).append(place)
    left = sorted(places)
    bin_of = np.empty(len(falling), np.int64)
    number = 0

    def put(length: int) -> None:
        bin_of[places[length].pop()] = number
        if not places[length]:
            del left[bisect.bisect_left(left, length)]

    while left:
        longest = left[-1]
        put(longest)
        for length in _filling(places, left, capacity - longest):
            put(length)
        number += 1
    return bin_of


def _filling(places: dict[int, list[int]], left: list[int], room: int) -> list[int]:
    """Lengths that together come nearest to `room`, few and long ones first.

    Bit n of `sums` says that some of the lengths so far add up to n.
    """
    sums, within, steps = 1, (2 << room) - 1, []
    for length in reversed(left[: bisect.bisect_right(left, room)]):
        for _ in range(min(len(places[length]), room // length)):
            more = (sums | sums << length) & within
            if more == sums:
                break
            steps.append((length, sums))
            sums = more
        if sums >> room:
            break
    reached, chosen = sums.bit_length() - 1, []
    for length, before in reversed(steps):
        if not before >> reached & 1:
            chosen.append(length)
            reached -= length
    return chosen


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count` in an order that the seed and the epoch alone decide."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def drawn(count: int, seed: int, most: int | None) -> list[int]:
    """At most `most` of the numbers below `count`, chosen by the seed: the first bins hold the longest examples."""
    return shuffled(count, seed, 0)[:most]


def positions(lengths: Sequence[int]) -> list[int]:
    """Position ids of a bin: each example counts from 0, which is what keeps them from seeing each other."""
    return [position for length in lengths for position in range(length)]
