"""What stands on two sides of a split: found without the sketches and the clusters that the split was made by.

Of the splitter's computation it shares the normalisation of texts and the definition of similarity. Texts are
compared once a side: a pair stands for all rows of the same two texts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.data.leaks.close_texts import Meanings, contained_texts, near_pairs, same_meaning
from pipelines.data.leaks.placed import NOWHERE, TRAIN, Placed, Questions
from pipelines.data.leaks.row_pairs import Collector, Pairs, ranges

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

KEYS = ("id", "text", "prompt", "group", "cluster")
KINDS = (*KEYS, "near", "containment", "semantic", "benchmark")
KEPT = 10_000
"""Pairs that a table of leaks lists; all are counted."""


@dataclass(frozen=True)
class Leaks:
    """Pairs of rows on two sides that belong together."""

    kind: "NDArray[np.int8]"
    """Code into KINDS."""
    left: "NDArray[np.int64]"
    """Row number, on the earlier side; of a containment the row that stands in the other."""
    right: "NDArray[np.int64]"
    similarity: "NDArray[np.float64]"
    """Jaccard similarity, share contained, or cosine; 1 where the kind is none."""
    boilerplate: int = 0
    """Long sequences that counted for nothing, as very many texts hold them (`containment.BOILERPLATE`)."""
    complete: bool = True
    """False: some kind has more pairs than are counted (`row_pairs.MOST_PAIRS`)."""

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> its pairs, of the kinds that there are."""
        import numpy as np

        counts = np.bincount(self.kind, minlength=len(KINDS))
        return {name: int(count) for name, count in zip(KINDS, counts, strict=True) if count}

    def of(self, *kinds: str) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """(left, right) rows of the pairs of these kinds."""
        import numpy as np

        wanted = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return self.left[wanted], self.right[wanted]

    def table(self, placed: Placed, most: int = KEPT) -> "pa.Table":
        """kind, left, right (ids), similarity: at most `most` pairs, as many of each kind, the likest first."""
        import numpy as np
        import pyarrow as pa

        order = np.lexsort((self.right, self.left, -self.similarity, self.kind))
        kinds = self.kind[order]
        rank = np.arange(len(order)) - np.searchsorted(kinds, kinds)
        order = order[rank < max(1, most // max(1, len(self.counts)))]
        return pa.table(
            {
                "kind": pa.array([KINDS[code] for code in self.kind[order]], pa.string()),
                "left": placed.ids.take(pa.array(self.left[order])),
                "right": placed.ids.take(pa.array(self.right[order])),
                "similarity": pa.array(self.similarity[order], pa.float64()),
            }
        )


@dataclass
class _Found:
    """Leaks while they are gathered."""

    parts: "list[tuple[str, Pairs]]" = field(default_factory=list)

    def add(self, kind: str, pairs: Pairs, benchmark_from: int) -> None:
        """Add these; what concerns a benchmark's items is of that kind, whatever brought it up."""
        theirs = (pairs.left >= benchmark_from) | (pairs.right >= benchmark_from)
        for name, wanted in ((kind, ~theirs), ("benchmark", theirs)):
            if wanted.any():
                part = Pairs(pairs.left[wanted], pairs.right[wanted], pairs.value[wanted], pairs.complete)
                self.parts.append((name, part))

    def leaks(self, boilerplate: int) -> Leaks:
        """All of them, a pair once a kind."""
        import numpy as np

        kinds = np.concatenate(
            [np.zeros(0, np.int8), *(np.full(len(p), KINDS.index(k), np.int8) for k, p in self.parts)]
        )
        empty = np.zeros(0, np.int64)
        left = np.concatenate([empty, *(part.left for _, part in self.parts)])
        right = np.concatenate([empty, *(part.right for _, part in self.parts)])
        value = np.concatenate([np.zeros(0), *(part.value for _, part in self.parts)])
        low, high = np.minimum(left, right), np.maximum(left, right)
        order = np.lexsort((-value, high, low, kinds))
        first = np.ones(len(order), bool)
        for each in (kinds, low, high):
            each = each[order]
            first[1:] &= each[1:] == each[:-1]
        first[1:] = ~first[1:]
        chosen = order[first]
        complete = all(part.complete for _, part in self.parts)
        return Leaks(kinds[chosen], left[chosen], right[chosen], value[chosen], boilerplate, complete)


def find_leaks(
    placed: Placed,
    threshold: float,
    containment: float | None = None,
    meanings: Meanings | None = None,
) -> Leaks:
    """A leak for each id, text, prompt, group and cluster that stands on two sides, and for each pair of texts alike.

    Alike are near-duplicates (`threshold`), texts of which one holds the share `containment` of the other's long
    sequences, and those that mean the same (see `Meanings`). Benchmark items are compared with the training side
    alone, with whole rows and with each question in them: the same text, a near-duplicate, the item in a row, or the
    same meaning as a whole row.
    """
    found = _Found()
    for kind in KEYS:
        found.add(kind, _shared(placed, kind), placed.rows)
    for pairs in near_pairs(placed, threshold):
        found.add("near", pairs, placed.rows)
    if placed.questions is not None:
        found.add("benchmark", _asked(placed, placed.questions, threshold), placed.rows)
    boilerplate = 0
    if containment is not None:
        contained = contained_texts(placed, containment)
        boilerplate = contained.boilerplate
        found.add("containment", contained.pairs, placed.rows)
    if meanings is not None:
        found.add("semantic", same_meaning(placed, meanings), placed.rows)
    return found.leaks(boilerplate)


def heal(placed: Placed, leaks: Leaks) -> "NDArray[np.bool_]":
    """Which rows to hold out, so that nothing leaks: training gives way to validation, and both to test.

    All rows of a group (id, text, cluster) leave the earlier sides, not only those that a pair names; of two texts
    alike, all rows of the one on the earlier side.
    """
    import numpy as np

    out = np.zeros(len(placed), bool)
    # Benchmark items make no side for others to give way to; what training shares with them is among the pairs.
    side = np.where(np.arange(len(placed)) < placed.rows, placed.side, NOWHERE)
    for kind in KEYS:
        if kind not in leaks.counts:
            continue
        key = placed.keys[kind]
        out |= (key != 0) & (side != NOWHERE) & (side < _highest(key, side))
    left, right = leaks.of("text", "near", "containment", "semantic", "benchmark")
    earlier = np.where(placed.side[left] < placed.side[right], left, right)
    # A pair stands for all rows with the same text on the same side.
    unit = _codes(placed.keys["text"], placed.side)
    out |= np.isin(unit, unit[earlier])
    return out[: placed.rows]


def bound_texts(placed: Placed, leaks: Leaks, kinds: Iterable[str], text: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Pairs of texts, the lower number first, that must not part again for leaks of these kinds to be none.

    `text`: for each row of the split the number of its text. Of a key (a prompt, a group) all rows that have it are
    joined, not only those that a pair names.
    """
    import numpy as np

    found = [np.zeros((0, 2), np.int64)]
    for kind in kinds:
        left, right = leaks.of(kind)
        if kind in KEYS:
            left, right = _chained(placed.keys[kind][: placed.rows], left)
        found.append(np.sort(np.stack((text[left], text[right]), 1), axis=1))
    return np.concatenate(found)


def _chained(key: "NDArray[np.uint64]", rows: "NDArray[np.int64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """(left, right) of pairs that join all rows which have the key of one of `rows`, key by key."""
    import numpy as np

    members = np.flatnonzero(np.isin(key, key[rows]))
    members = members[np.argsort(key[members], kind="stable")]
    same = key[members][1:] == key[members][:-1]
    return members[:-1][same], members[1:][same]


def _shared(placed: Placed, kind: str) -> Pairs:
    """One pair for each further side on which a key stands: the first rows there and on its earliest side."""
    import numpy as np

    key, side = placed.keys[kind], placed.side
    rows = np.flatnonzero((key != 0) & (side != NOWHERE))
    rows = rows[np.lexsort((side[rows], key[rows]))]
    key, side = key[rows], side[rows]
    new_key = np.ones(len(rows), bool)
    new_key[1:] = key[1:] != key[:-1]
    new_side = ~new_key
    new_side[1:] &= side[1:] != side[:-1]
    right = np.flatnonzero(new_side)
    left = np.flatnonzero(new_key)[np.cumsum(new_key)[right] - 1] if len(right) else right
    left, right = rows[left], rows[right]
    # A benchmark is compared with training alone, and two of its items are nobody's leak.
    keep = (right < placed.rows) | (placed.side[left] == TRAIN)
    return Pairs(left[keep], right[keep], np.ones(int(keep.sum())))


def _asked(placed: Placed, questions: Questions, threshold: float) -> Pairs:
    """(a row for training, an item that it asks), exactly or nearly so; each row, however many ask the same."""
    import numpy as np

    row = questions.row
    asked = questions.placed.on(np.where(placed.side[row] == TRAIN, TRAIN, NOWHERE))
    pairs = [_shared(asked, "text"), *near_pairs(asked, threshold)]
    one, item, value = (np.concatenate([getattr(part, name) for part in pairs]) for name in ("left", "right", "value"))
    # A pair stands for all questions of the same text.
    text, learnt = asked.keys["text"], np.flatnonzero(asked.side[: asked.rows] == TRAIN)
    learnt = learnt[np.argsort(text[learnt], kind="stable")]
    start, stop = (np.searchsorted(text[learnt], text[one], side=side) for side in ("left", "right"))
    found = Collector()
    for which, question in ranges(np.arange(len(one), dtype=np.int32), learnt.astype(np.int32), start, stop):
        found.add(row[question], item[which] - asked.rows + placed.rows, value[which])
        if found.full:
            break
    every = found.pairs()
    return Pairs(every.left, every.right, every.value, every.complete and all(part.complete for part in pairs))


def _highest(key: "NDArray[np.uint64]", side: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """For each row the latest side on which its key stands."""
    import numpy as np

    order = np.lexsort((side, key))
    ends = np.append(np.flatnonzero(key[order][1:] != key[order][:-1]), len(order) - 1)
    highest = np.empty(len(order), np.int64)
    highest[order] = np.repeat(side[order][ends], np.diff(np.concatenate(([-1], ends))))
    return highest


def _codes(key: "NDArray[np.uint64]", side: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """A number for each row, the same where key and side are."""
    import numpy as np

    order = np.lexsort((side, key))
    new = np.zeros(len(order), np.int64)
    new[1:] = (key[order][1:] != key[order][:-1]) | (side[order][1:] != side[order][:-1])
    codes = np.empty(len(order), np.int64)
    codes[order] = np.cumsum(new)
    return codes
