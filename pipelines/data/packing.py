"""Packing encoded examples into bins of a fixed capacity, and the order in which bins are read. Pure."""

import bisect
import heapq
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack(lengths: "NDArray[np.integer[Any]]", capacity: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Example numbers, bin after bin, and how many each bin holds.

    Best-fit decreasing: at most 11/9 of the least number of bins (Johnson 1974). Every example stands in exactly one
    bin and no bin holds more than `capacity` tokens. Raises ValueError for an example that fits in none.
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"an example of {lengths.max()} tokens fits no bin of {capacity}")
    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    bin_of = np.empty(len(lengths), np.int64)
    count = 0
    # Bins by the room that they have left, the oldest first; rooms holds those of some bin, sorted.
    having: dict[int, list[int]] = {}
    rooms: list[int] = []
    for place, length in enumerate(lengths[longest_first].tolist()):
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
    return longest_first[np.argsort(bin_of, kind="stable")], np.bincount(bin_of, minlength=count)


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count` in an order that the seed and the epoch alone decide."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def positions(lengths: Sequence[int]) -> list[int]:
    """Position ids of a bin: each example counts from 0, which is what keeps them from seeing each other."""
    return [position for length in lengths for position in range(length)]
