"""Texts that stand largely in another one: the share of their long word sequences that it holds, found exactly.

A text that shares at least the share c of its sequences with another has one of it among its |x| - ceil(c |x|) + 1
rarest (see `similarity_join`): these are looked up in all other texts. Sequences of very many texts (a licence, a
signature) are boilerplate: they say nothing of where a text comes from, and are left out of all sets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.leaks.row_pairs import Collector, Pairs, distinct_pairs, ranges
from pipelines.data.leaks.similarity_join import HAIR, prefixes, shared_tokens
from pipelines.data.leaks.token_census import Census, in_buckets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.leaks.similarity_join import Likes, Stream
    from pipelines.data.leaks.text_store import Sets
    from pipelines.data.leaks.token_census import Sides

BOILERPLATE = 1000
"""A sequence in more texts than this counts for nothing."""
_PROBED_BITS = 26


@dataclass(frozen=True)
class Containment:
    """What stands in what."""

    pairs: Pairs
    """left: a row; right: one on another side that holds `value` of its sequences."""
    boilerplate: int
    """Sequences that were left out, as they stand in more than BOILERPLATE texts."""


def contained_pairs(stream: "Stream", sides: "Sides", share: float, likes: "Likes", tokens: int) -> Containment:
    """The pairs of rows on two sides of which the right one holds at least `share` of the left one's sequences.

    `stream` gives sets of long sequences, about `tokens` in all; `likes` tells which pairs count.
    """
    import numpy as np

    everything, census = np.ones(len(sides), bool), Census(tokens, sides)
    for sets in stream(everything):
        census.add(sets)
    common = census.common(BOILERPLATE)

    def telling(wanted: "NDArray[np.bool_]") -> "Iterator[Sets]":
        return (sets.only(~in_buckets(sets.tokens, common)) for sets in stream(wanted))

    sizes = np.zeros(len(sides), np.int64)
    for sets in telling(everything):
        sizes[sets.rows] = sets.sizes
    needed = np.maximum(1, np.ceil(share * sizes - HAIR)).astype(np.int64)

    def large_enough(left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        keep: NDArray[np.bool_] = (sizes[right] >= needed[left]) & (sides[left] != sides[right])
        return keep & likes(left, right)

    found, waiting = Collector(), _Waiting()
    for left, right in _holders(telling(everything), prefixes(telling(everything), census, share), census):
        keep = large_enough(left, right)
        waiting.add(left[keep], right[keep])
        if waiting.many:
            _confirm(waiting, telling, sizes, share, found)
        if found.full:
            break
    _confirm(waiting, telling, sizes, share, found)
    return Containment(found.pairs(), int(common.sum()))


def _holders(
    stream: "Iterator[Sets]", probes: "tuple[NDArray[np.uint64], NDArray[np.int32]]", census: Census
) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]":
    """(a row, one that holds one of its rarest sequences), each pair once a batch; a row meets itself too."""
    import numpy as np

    keys, rows = probes
    order = np.argsort(keys)
    keys, rows = keys[order], rows[order]
    bits = min(_PROBED_BITS, len(keys).bit_length() + 4)
    mask = np.uint64((1 << bits) - 1)
    probed = np.zeros(1 << bits, bool)
    probed[keys & mask] = True
    for sets in stream:
        key = census.keys(sets)
        place = np.flatnonzero(probed[key & mask])
        start = np.searchsorted(keys, key[place])
        stop = np.searchsorted(keys, key[place], side="right")
        holder = np.repeat(sets.rows, sets.sizes)[place].astype(np.int32)
        for right, left in ranges(holder, rows, start, stop):
            yield distinct_pairs(left, right)


class _Waiting:
    """Candidates that are not yet looked at."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._count = 0

    def add(self, left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> None:
        if len(left):
            self._parts.append((left, right))
            self._count += len(left)

    @property
    def many(self) -> bool:
        return self._count > 1_000_000

    def taken(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """All of them, each once; none wait any more."""
        import numpy as np

        empty = np.zeros(0, np.int64)
        left = np.concatenate([empty, *(left for left, _ in self._parts)])
        right = np.concatenate([empty, *(right for _, right in self._parts)])
        self._parts, self._count = [], 0
        return distinct_pairs(left, right)


def _confirm(waiting: _Waiting, stream: "Stream", sizes: "NDArray[np.int64]", share: float, found: Collector) -> None:
    left, right = waiting.taken()
    for part, shared in shared_tokens(stream, left, right, sizes):
        value = shared / sizes[left[part]]
        enough = value >= share
        found.add(left[part][enough], right[part][enough], value[enough])
