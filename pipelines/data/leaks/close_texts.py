"""Placed texts of two sides that are near-duplicates, mean the same, or of which one stands in the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.leaks.containment import Containment, contained_pairs
from pipelines.data.leaks.placed import TRAIN, Placed
from pipelines.data.leaks.row_pairs import Collector, Pairs
from pipelines.data.leaks.similarity_join import HAIR, similar_pairs
from pipelines.data.leaks.text_store import holds_space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.leaks.similarity_join import Likes, Stream
    from pipelines.data.leaks.text_store import Kind

_VECTORS = 2048
"""That are multiplied with as many others at once."""
_ROUNDING = 1e-6
_SHORT_SPACED = 40
"""The most sequences of five characters that hold a space, of a short text: it has eight spaces."""
_CHARACTERS = 6
"""Of a word and the space after it, about."""


def near_pairs(placed: Placed, threshold: float) -> Iterator[Pairs]:
    """The pairs of different texts on two sides whose similarity reaches the threshold, each text once a side.

    By characters where either is short, by words else. Sides may be any numbers from 0.
    """
    import numpy as np

    chosen, short = placed.once_a_side(), placed.short
    comparable = _comparable(placed)
    long = chosen & ~short
    yield similar_pairs(
        _stream(placed, "words", long), placed.side, threshold, comparable, int(placed.words[long].sum())
    )
    if not (chosen & short).any():
        return
    by_characters = (chosen & short) | _within_reach(placed, long, chosen & short, threshold)

    def one_is_short(left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        found: NDArray[np.bool_] = (short[left] | short[right]) & comparable(left, right)
        return found

    size = _CHARACTERS * int(placed.words[by_characters].sum())
    yield similar_pairs(_stream(placed, "characters", by_characters), placed.side, threshold, one_is_short, size)


def contained_texts(placed: Placed, share: float) -> Containment:
    """The pairs of different texts on two sides of which the right one holds `share` of the left one's sequences.

    Of benchmarks, the items that stand in a row; not the rows that stand in an item.
    """
    wanted = placed.once_a_side()
    comparable = _comparable(placed)

    def item_in_row(left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        return comparable(left, right) & (right < placed.rows)

    return contained_pairs(
        _stream(placed, "long", wanted), placed.side, share, item_in_row, int(placed.words[wanted].sum())
    )


@dataclass(frozen=True)
class Meanings:
    """What the rows' texts mean, as unit vectors, and from which cosine two mean the same."""

    units: "NDArray[np.float32]"
    """Of texts."""
    place: "NDArray[np.int64]"
    """For each row the place of its text's vector."""
    items: "NDArray[np.float32]"
    """Of the benchmark items."""
    threshold: float

    def of(self, rows: "NDArray[np.int64]") -> "NDArray[np.float32]":
        """The vectors of these rows and items."""
        import numpy as np

        found = np.empty((len(rows), self.units.shape[1]), np.float32)
        own = rows < len(self.place)
        found[own] = self.units[self.place[rows[own]]]
        found[~own] = self.items[rows[~own] - len(self.place)]
        return found


def same_meaning(placed: Placed, meanings: Meanings) -> Pairs:
    """The pairs of different texts on two sides whose vectors reach the cosine: each is compared with each.

    From the vectors alone: it is nothing to them which pairs a search for clusters kept.
    """
    import numpy as np

    rows = np.flatnonzero(placed.once_a_side())
    rows = rows[np.argsort(placed.side[rows], kind="stable")]
    comparable, found = _comparable(placed), Collector()
    for start in range(0, len(rows), _VECTORS):
        block = rows[start : start + _VECTORS]
        vectors = meanings.of(block)
        for other in range(start, len(rows), _VECTORS):
            later = rows[other : other + _VECTORS]
            if placed.side[block[0]] == placed.side[later[-1]]:
                continue
            cosine = vectors @ meanings.of(later).T
            # In 32 bits equal vectors may miss 1 by a little.
            i, j = np.nonzero(cosine >= meanings.threshold - _ROUNDING)
            left, right = block[i], later[j]
            kept = (placed.side[left] < placed.side[right]) & comparable(left, right)
            found.add(left[kept], right[kept], cosine[i, j][kept].astype(np.float64))
        if found.full:
            break
    return found.pairs()


def _stream(placed: Placed, kind: "Kind", chosen: "NDArray[np.bool_]") -> "Stream":
    return lambda wanted: placed.sets(kind, chosen & wanted)


def _comparable(placed: Placed) -> "Likes":
    text, side, rows = placed.keys["text"], placed.side, placed.rows

    def differ(left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        """Two texts; and of a benchmark's item and a row, the row is one to learn from."""
        theirs = (left >= rows) ^ (right >= rows)
        learnt = (side[left] == TRAIN) | (side[right] == TRAIN)
        found: NDArray[np.bool_] = (text[left] != text[right]) & (~theirs | learnt)
        return found & ~((left >= rows) & (right >= rows))

    return differ


def _within_reach(
    placed: Placed, long: "NDArray[np.bool_]", short: "NDArray[np.bool_]", threshold: float
) -> "NDArray[np.bool_]":
    """Which of the `long` texts may be as near as the threshold to a short one, by characters.

    A short text has few spaces, so it shares few of a longer one's sequences that hold one; and of two near sets
    the larger has at most 1 / threshold times the smaller one's elements.
    """
    import numpy as np

    largest = max(int(sets.sizes.max()) for sets in placed.sets("characters", short))
    reach = np.zeros(len(placed), bool)
    for sets in placed.sets("characters", long):
        spaced = np.bincount(sets.places[holds_space(sets.tokens)], minlength=len(sets.rows))
        shared = np.minimum(spaced, _SHORT_SPACED) + (sets.sizes - spaced)
        near = (shared >= threshold * sets.sizes - HAIR) & (largest >= threshold * sets.sizes - HAIR)
        reach[sets.rows[near]] = True
    return reach
