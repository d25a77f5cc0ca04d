"""What a corpus looks like as a whole: repeats, clusters, lengths, who made it; arrays over rows, nothing a row."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.example import answers
from pipelines.data.profile import answer_hash
from pipelines.data.sides.once import by_a_person

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SIMULATIONS = 20
"""Random splits that are simulated, and averaged; of more than MANY_ROWS a few say the same."""
MANY_ROWS = 50_000
WORD_BOUNDS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""Words at which the bars of the length histograms end."""
TOKEN_BOUNDS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
SIZE_BOUNDS = (1, 2, 5, 10, 100)
"""Rows at which the bars of the histogram of cluster sizes end."""
PAIRS = 5
"""Pairs that a random split would leak that are shown."""
NAMES = 10
"""The commonest values of a column that are named."""


@dataclass(frozen=True)
class RandomSplit:
    """What a split of the rows at random would leak."""

    leak_share: float
    """Share of the test rows with another row of their cluster on the training side."""
    group_share: float
    """Share of the test rows with another row of their group there."""
    test_rows: int
    """Size of the test side."""
    pairs: tuple[tuple[int, int], ...]
    """Some rows of the test side of one such split, each with a row of its cluster or group in training."""


def _none() -> "NDArray[np.int64]":
    import numpy as np

    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Survey:
    """A corpus with its evidence, and what is computed from them at most once."""

    corpus: Corpus
    evidence: Evidence
    instruction: str = ""
    """What the recipe put before every prompt: not shown."""
    kinds: tuple[str, ...] = ()
    """Kinds of personal data and secrets that the recipe looks for: not shown."""
    kept: "NDArray[np.int64]" = field(default_factory=_none)
    """The rows that people looked at and decided to keep."""
    dropped: "NDArray[np.int64]" = field(default_factory=_none)
    """The rows that people decided to leave out: they count for no gate that asks what goes on from here."""

    @cached_property
    def rows(self) -> int:
        """Rows of the corpus, repeats included."""
        return len(self.corpus)

    @cached_property
    def decided(self) -> "NDArray[np.int64]":
        """The rows that people decided about."""
        import numpy as np

        return np.concatenate((self.kept, self.dropped))

    @cached_property
    def stays(self) -> "NDArray[np.bool_]":
        """For each row whether it goes on, as far as people decided."""
        import numpy as np

        flags = np.ones(self.rows, np.bool_)
        flags[self.dropped] = False
        return flags

    @cached_property
    def private(self) -> "pa.Table":
        """The evidence's personal data and secrets in the rows that stay."""
        import pyarrow as pa

        found = self.evidence.private
        return found.filter(pa.array(self.stays[found["row"].to_numpy()]))

    @cached_property
    def id(self) -> "NDArray[np.int64]":
        """For each row the number of its id."""
        return self.corpus.numbers("id")

    @cached_property
    def first(self) -> "NDArray[np.int64]":
        """The first row of each id, ascending."""
        import numpy as np

        return np.sort(np.unique(self.id, return_index=True)[1]).astype(np.int64)

    @cached_property
    def repeats(self) -> "NDArray[np.int64]":
        """Number of an id -> how many rows have it."""
        import numpy as np

        return np.bincount(self.id).astype(np.int64)

    @cached_property
    def cluster_sizes(self) -> "NDArray[np.int64]":
        """Rows of each cluster, repeats included."""
        import numpy as np

        return np.unique(self.evidence.cluster, return_counts=True)[1].astype(np.int64)

    @cached_property
    def by_person(self) -> "NDArray[np.bool_]":
        """Whether a named person wrote or approved the row's answers."""
        return by_a_person(self.corpus.column("annotator").combine_chunks())

    @cached_property
    def by_people(self) -> int:
        """Different ids that a named person wrote or approved, of rows that stay."""
        import numpy as np

        return len(np.unique(self.id[self.by_person & self.stays]))

    @cached_property
    def declared(self) -> int:
        """Rows whose origin the recipe declares, in part or whole."""
        import pyarrow.compute as pc

        silent = 0
        for batch in self.corpus.batches(["meta"]):
            silent += pc.sum(pc.match_substring(batch["meta"], '"declared": []')).as_py() or 0
        return self.rows - silent

    def missing(self, name: str) -> "NDArray[np.int64]":
        """The rows that stay in which a column is null."""
        import numpy as np

        return np.flatnonzero(self.corpus.column(name).is_null().to_numpy() & self.stays)

    @cached_property
    def most_common_answer(self) -> "tuple[NDArray[np.int64], int]":
        """The rows that hold the answer which stands in most rows (the first such), and its hash."""
        import numpy as np

        column = self.corpus.column("answer_hashes").combine_chunks()
        hashes, offsets = column.values.to_numpy(), column.offsets.to_numpy()
        found, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        most = np.flatnonzero(counts == counts.max())
        chosen = found[most[np.argmin(first[most])]]
        rows = np.searchsorted(offsets, np.flatnonzero(hashes == chosen), side="right") - 1
        return rows.astype(np.int64), int(chosen)

    @cached_property
    def common_answer(self) -> str:
        """The text of `most_common_answer`."""
        rows, wanted = self.most_common_answer
        turns = json.loads(self.corpus.take(rows[:1], ["messages"])["messages"][0].as_py())
        return next(text for text in answers(turns) if answer_hash(text) == wanted)

    def random_split(self, train: float, test: float, seed: int) -> RandomSplit:
        """What a split of the rows at random would leak, averaged over seeded simulations."""
        import numpy as np

        size = self.rows
        test_rows = max(1, round(size * test)) if size else 0
        train_rows = min(round(size * train), size - test_rows)
        pairs: list[tuple[int, int]] = []
        cluster, group = self.evidence.cluster, self.corpus.numbers("group")
        seen, seen_groups = np.zeros(size, bool), np.zeros(size + 1, bool)
        leaked = grouped = drawn = 0
        for order in _orders(size, seed):
            tested, learnt = order[:test_rows], order[test_rows : test_rows + train_rows]
            seen[:], seen_groups[:] = False, False
            seen[cluster[learnt]] = True
            seen_groups[group[learnt]] = True
            # That of -1, rows without a group.
            seen_groups[-1] = False
            leaked += int(seen[cluster[tested]].sum())
            grouped += int(seen_groups[group[tested]].sum())
            drawn += test_rows
            # Of the first that leaks anything, by the cluster before those by the group.
            pairs = pairs or [*_pairs(cluster, tested, learnt, seen), *_pairs(group, tested, learnt, seen_groups)]
        return RandomSplit(leaked / (drawn or 1), grouped / (drawn or 1), test_rows, tuple(pairs[:PAIRS]))


def _pairs(
    key: "NDArray[np.int64]", tested: "NDArray[np.int64]", learnt: "NDArray[np.int64]", seen: "NDArray[np.bool_]"
) -> list[tuple[int, int]]:
    """The first PAIRS rows of the test side with a row of the same key in training, and that row."""
    import numpy as np

    leaking = np.sort(tested[seen[key[tested]]])[:PAIRS]
    return [(int(row), int(learnt[key[learnt] == key[row]].min())) for row in leaking]


def _orders(size: int, seed: int) -> "Iterator[NDArray[np.int64]]":
    import numpy as np

    if size > MANY_ROWS:
        generator = np.random.default_rng(seed)
        for _ in range(3):
            yield generator.permutation(size)
        return
    order, chance = list(range(size)), random.Random(seed)
    for _ in range(SIMULATIONS):
        chance.shuffle(order)
        yield np.array(order, np.int64)


def lengths(values: "NDArray[Any]", bounds: Sequence[int] = WORD_BOUNDS) -> dict[str, Any]:
    """Least, median, mean, 95th percentile, most, and a histogram; of at least one value."""
    import numpy as np

    ordered = np.sort(values)
    return {
        "min": int(ordered[0]),
        "median": float(np.median(ordered)),
        "mean": round(float(ordered.mean()), 1),
        "p95": int(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]),
        "max": int(ordered[-1]),
        "histogram": histogram(ordered, bounds),
    }


def histogram(values: "NDArray[Any]", bounds: Sequence[int]) -> list[dict[str, int | None]]:
    """How many values lie up to each bound and above the one before; the last bar has no end."""
    import numpy as np

    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1).tolist()
    lows = (0, *(bound + 1 for bound in bounds))
    return [{"from": low, "to": high, "count": n} for low, high, n in zip(lows, (*bounds, None), counts, strict=True)]


def commonest(column: "pa.ChunkedArray", most: int = NAMES) -> list[tuple[Any, int]]:
    """The commonest values of a column with their rows, the first in the data first among equals."""
    import pyarrow.compute as pc

    counted = pc.value_counts(column.combine_chunks())
    values, counts = counted.field("values"), counted.field("counts").to_numpy()
    order = (-counts).argsort(kind="stable")[:most]
    return [(values[int(place)].as_py(), int(counts[place])) for place in order]
