"""Exact Jaccard similarity of pairs of rows: sets of hashed shingles on disk, compared by the chunk."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.similarity.sketches import Ragged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 4_000_000
"""Shingles of each side that are held in memory at once: some 100 MB."""


class ShingleSets:
    """The shingles of some rows, kept in a file that goes with the object: a laptop's memory bounds nothing.

    Of each hash 63 bits are kept, as scipy's indices have a sign.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        import numpy as np

        self._place = np.full(rows, -1, np.int64)
        self._sizes: list[NDArray[np.int64]] = []
        self._file = tempfile.TemporaryFile(prefix="sluice-shingles-", dir=folder)  # noqa: SIM115
        self._known = 0
        self._sets: Ragged | None = None

    def add(self, rows: "NDArray[np.int64]", shingles: Ragged) -> None:
        """Keep the distinct shingles of `rows`."""
        import numpy as np

        distinct = shingles.distinct()
        # The upper bits, whose order is that of all.
        (distinct.values >> np.uint64(1)).tofile(self._file)
        self._place[rows] = np.arange(self._known, self._known + len(rows))
        self._sizes.append(distinct.sizes)
        self._known += len(rows)
        self._sets = None

    def similarities(self, left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.float64]":
        """Shared shingles over all shingles of each pair of rows."""
        import numpy as np

        sets = self._opened()
        places = self._place[left], self._place[right]
        sizes = sets.sizes[places[0]], sets.sizes[places[1]]
        shared = np.zeros(len(left), np.int64)
        ends = np.cumsum(np.maximum(*sizes))
        start = 0
        while start < len(left):
            reached = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, reached + CHUNK, side="right")))
            shared[start:stop] = _shared(sets.take(places[0][start:stop]), sets.take(places[1][start:stop]))
            start = stop
        similar: NDArray[np.float64] = shared / (sizes[0] + sizes[1] - shared)
        return similar

    def near(
        self, left: "NDArray[np.int64]", right: "NDArray[np.int64]", threshold: float
    ) -> "tuple[NDArray[np.bool_], NDArray[np.float64]]":
        """(which pairs reach the threshold, the similarity of each; 0 where the sizes alone rule it out)."""
        import numpy as np

        all_sizes = self._opened().sizes
        sizes = all_sizes[self._place[left]], all_sizes[self._place[right]]
        possible = np.flatnonzero(np.minimum(*sizes) >= threshold * np.maximum(*sizes))
        similar = np.zeros(len(left))
        similar[possible] = self.similarities(left[possible], right[possible])
        return similar >= threshold, similar

    def _opened(self) -> Ragged:
        import numpy as np

        if self._sets is None:
            self._file.flush()
            sizes = np.concatenate([np.zeros(1, np.int64), *self._sizes])
            offsets = np.cumsum(sizes)
            held = np.memmap(self._file, np.uint64, "r", shape=(int(offsets[-1]),)) if offsets[-1] else sizes[:0]
            self._sets = Ragged(held, offsets)
        return self._sets


def _shared(left: Ragged, right: Ragged) -> "NDArray[np.int64]":
    """How many values the n-th rows of both have in common, by one merge of ascending rows (scipy's, compiled)."""
    import numpy as np
    from scipy.sparse import csr_matrix

    both = []
    for side in (left, right):
        ones = np.ones(len(side.values), np.int8)
        matrix = csr_matrix((ones, side.values.view(np.int64), side.offsets), shape=(len(side), 2**63 - 1))
        # Ascending and distinct: said, it need not be looked at again.
        matrix.has_canonical_format = True
        both.append(matrix)
    counts: NDArray[np.int64] = np.diff(both[0].multiply(both[1]).indptr)
    return counts
