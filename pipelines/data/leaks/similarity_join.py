"""All pairs of texts on two sides whose sets of tokens are similar: exact, without comparing every pair.

Pure but for the store that it reads. Candidates by prefix filtering: two sets whose Jaccard similarity is at least
t share a token among the |x| - ceil(t |x|) + 1 first of each, in any order of all tokens; rare ones first leaves the
fewest candidates (Chaudhuri, Ganti and Kaushik, "A primitive operator for similarity joins", 2006; Bayardo, Ma and
Srikant, "Scaling up all pairs similarity search", 2007). Most of these fall by a sketch of parities; the others'
tokens are counted.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipelines.data.leaks.row_pairs import CHUNK, Collector, Pairs, distinct_pairs, ranges
from pipelines.data.leaks.text_store import TOKEN_BITS, Sets
from pipelines.data.leaks.token_census import HASH_BITS, RARITY_BITS, Census

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.leaks.token_census import Sides

    Likes = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
    """Whether two rows, given as arrays, are to be compared at all."""
    Stream = Callable[[NDArray[np.bool_]], Iterator[Sets]]
    """The sets of the rows that are wanted, and that it holds; the same ones each time."""

_TOKENS_AT_ONCE = 2**25
"""Tokens of candidates that are in memory together."""
HAIR = 1e-9
"""Below every bound, so that rounding loses no pair that is exactly at the threshold."""


def similar_pairs(stream: "Stream", sides: "Sides", threshold: float, likes: "Likes", tokens: int) -> Pairs:
    """The pairs of rows on two sides whose sets' Jaccard similarity is at least `threshold`, the lower side first.

    `tokens` is about how many the sets hold together; `likes` tells which pairs count.
    """
    import numpy as np

    everything = np.ones(len(sides), bool)
    census = Census(tokens, sides)
    sizes = np.zeros(len(sides), np.int64)
    parities = np.zeros((len(sides), 4), np.uint64)
    for sets in stream(everything):
        census.add(sets)
        sizes[sets.rows] = sets.sizes
        parities[sets.rows] = _parities(sets)

    def near_enough(left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        keep = (small >= threshold * large - HAIR) & likes(left, right)
        # Each odd place takes at least one token that only one of the two holds.
        apart = np.bitwise_count(parities[left[keep]] ^ parities[right[keep]]).sum(axis=1)
        most = (small[keep] + large[keep]) * (1 - threshold) / (1 + threshold)
        keep[keep] = apart <= most + HAIR
        return keep

    found = Collector()
    index = prefixes(stream(everything), census, threshold)
    for left, right in _met(index, sides):
        keep = near_enough(left, right)
        left, right = distinct_pairs(left[keep], right[keep])
        for part, shared in shared_tokens(stream, left, right, sizes):
            value = shared / (sizes[left[part]] + sizes[right[part]] - shared)
            near = value >= threshold
            found.add(left[part][near], right[part][near], value[near])
        if found.full:
            break
    return found.pairs()


def prefixes(
    stream: Iterator[Sets], census: Census, threshold: float
) -> "tuple[NDArray[np.uint64], NDArray[np.int32]]":
    """(order keys, rows) of each set's first tokens, of those alone that stand on several sides."""
    import numpy as np

    keys, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
    for sets in stream:
        place = sets.places
        order = np.uint64(RARITY_BITS + HASH_BITS)
        ordered = np.sort((place.astype(np.uint64) << order) | census.keys(sets))
        first = np.arange(len(place)) - sets.starts[:-1][place] < prefix_sizes(sets.sizes, threshold)[place]
        key, row = ordered[first] & np.uint64((1 << int(order)) - 1), sets.rows[place[first]]
        # An order key holds a token's lowest bits, by which it has its bucket.
        several = census.on_several_sides(key & np.uint64((1 << HASH_BITS) - 1))
        keys.append(key[several])
        rows.append(row[several].astype(np.int32))
    return np.concatenate(keys), np.concatenate(rows)


def prefix_sizes(sizes: "NDArray[np.int64]", threshold: float) -> "NDArray[np.int64]":
    """How many first tokens of a set must hold one of every other that shares `threshold` of it."""
    import numpy as np

    lengths: NDArray[np.int64] = sizes - np.ceil(threshold * sizes - HAIR).astype(np.int64) + 1
    return np.minimum(lengths, sizes)


def _met(
    index: "tuple[NDArray[np.uint64], NDArray[np.int32]]", sides: "Sides"
) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]":
    """The pairs of rows on two sides that share a key, some repeated, about CHUNK at a time."""
    import numpy as np

    keys, rows = index
    side = sides[rows]
    order = np.lexsort((side, keys))
    keys, rows, side = keys[order], rows[order], side[order]
    changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    ends = np.append(changes, len(keys))
    run_end = np.repeat(ends, np.diff(np.concatenate(([0], ends)))) if len(keys) else ends[:0]
    parts = np.append(np.flatnonzero((keys[1:] != keys[:-1]) | (side[1:] != side[:-1])) + 1, len(keys))
    part_end = np.repeat(parts, np.diff(np.concatenate(([0], parts)))) if len(keys) else parts[:0]
    yield from ranges(rows, rows, part_end, run_end)


def shared_tokens(
    stream: "Stream",
    left: "NDArray[np.int64]",
    right: "NDArray[np.int64]",
    sizes: "NDArray[np.int64]",
) -> "Iterator[tuple[slice, NDArray[np.int64]]]":
    """(part of the pairs, number of tokens that each of them shares), over all pairs."""
    import numpy as np

    for part in _parts(sizes[left] + sizes[right], _TOKENS_AT_ONCE):
        wanted = np.zeros(len(sizes), bool)
        wanted[left[part]] = wanted[right[part]] = True
        gathered = list(stream(wanted))
        at = np.zeros(len(sizes), np.int64)
        at[np.concatenate([sets.rows for sets in gathered])] = np.arange(int(wanted.sum()))
        tokens = np.concatenate([sets.tokens for sets in gathered])
        starts = np.concatenate(([0], np.cumsum(np.concatenate([sets.sizes for sets in gathered]))))
        yield part, _intersections(tokens, starts, at[left[part]], at[right[part]])


def _intersections(
    tokens: "NDArray[np.uint64]", starts: "NDArray[np.int64]", left: "NDArray[np.int64]", right: "NDArray[np.int64]"
) -> "NDArray[np.int64]":
    import numpy as np

    sizes = starts[1:] - starts[:-1]
    shared = np.zeros(len(left), np.int64)
    for part in _parts(sizes[left] + sizes[right], 2**20, most=1 << (64 - TOKEN_BITS)):
        rows = np.concatenate((left[part], right[part]))
        count = part.stop - part.start
        many = sizes[rows]
        places = np.arange(int(many.sum())) + np.repeat(starts[rows] - (np.cumsum(many) - many), many)
        pair = np.repeat(np.tile(np.arange(count), 2), many).astype(np.uint64)
        # A token that both hold stands there twice.
        keys = np.sort((pair << np.uint64(TOKEN_BITS)) | tokens[places])
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(TOKEN_BITS)
        shared[part] = np.bincount(twice.astype(np.int64), minlength=count)
    return shared


def _parts(weights: "NDArray[np.int64]", limit: int, most: int = CHUNK) -> Iterator[slice]:
    """Consecutive parts whose weights sum to at most `limit` (or of one alone), of at most `most` each."""
    import numpy as np

    before, first = np.cumsum(weights), 0
    while first < len(weights):
        done = before[first - 1] if first else 0
        last = int(np.searchsorted(before, done + limit, side="right"))
        last = min(max(last, first + 1), first + most)
        yield slice(first, last)
        first = last


def _parities(sets: Sets) -> "NDArray[np.uint64]":
    """For each text 256 bits: whether the number of its tokens that belong to a bit is odd."""
    import numpy as np

    bit = np.uint64(1) << (sets.tokens & np.uint64(63))
    word = (sets.tokens >> np.uint64(6)) & np.uint64(3)
    found = np.zeros((len(sets.rows), 4), np.uint64)
    filled = np.flatnonzero(sets.sizes)
    for number in range(4):
        own = np.where(word == number, bit, np.uint64(0))
        found[filled, number] = np.bitwise_xor.reduceat(own, sets.starts[:-1][filled]) if len(filled) else 0
    return found
