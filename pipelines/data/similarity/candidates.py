"""Candidate pairs: rows that agree in a band's key. Sorted in this process, or shuffled by Ray Data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

DENSE = 128
"""Rows of one bucket among which every pair is looked at. Of more (texts from a template) each is joined with
the first that it is near instead: the pairs of ten thousand like texts would fill the memory, and say no more."""
PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Buckets:
    """Groups of at least two rows, one after another; ascending within each."""

    rows: "NDArray[np.int64]"
    offsets: "NDArray[np.int64]"

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """Rows of each bucket."""
        return self.offsets[1:] - self.offsets[:-1]

    def pairs(self) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]":
        """Every pair (lower row, higher row) of the buckets that are not DENSE."""
        import numpy as np

        sizes = self.sizes
        for size in np.flatnonzero(np.bincount(sizes[sizes <= DENSE])).tolist():
            starts = self.offsets[:-1][sizes == size]
            first, second = np.triu_indices(size, 1)
            step = max(1, PAIRS_AT_ONCE // len(first))
            for begin in range(0, len(starts), step):
                members = self.rows[starts[begin : begin + step, None] + np.arange(size)]
                yield members[:, first].ravel(), members[:, second].ravel()

    def dense(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """(rows, number of its bucket for each) of the buckets that are DENSE."""
        import numpy as np

        sizes = self.sizes
        kept = np.repeat(sizes > DENSE, sizes)
        return self.rows[kept], np.repeat(np.arange(len(sizes)), sizes)[kept]


class BucketsHere:
    """Per band the rows of `among` that agree in it; one column is held at a time."""

    def __init__(self, corpus: Corpus, bands: Sequence[str], among: "NDArray[np.bool_]") -> None:
        self._corpus, self._bands, self._among = corpus, bands, among

    def __iter__(self) -> Iterator[Buckets]:
        import numpy as np

        for band in self._bands:
            column = self._corpus.column(band).combine_chunks()
            rows = np.flatnonzero(np.asarray(column.is_valid()))
            chosen = self._among[rows]
            yield bucketed(column.drop_null().to_numpy()[chosen], rows[chosen])


def bucketed(keys: "NDArray[np.uint64]", rows: "NDArray[np.int64]") -> Buckets:
    """The ascending `rows` that agree in their key, where there are several."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.ones(len(keys), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(first)
    sizes = np.diff(np.append(starts, len(keys)))
    kept = rows[order[np.repeat(sizes > 1, sizes)]]
    return Buckets(kept, np.concatenate(([0], np.cumsum(sizes[sizes > 1]))))


class BucketsByRay:
    """The same buckets through a shuffle of the keys by Ray Data: once, however often they are looked through."""

    def __init__(self, corpus: Corpus, bands: Sequence[str], among: "NDArray[np.bool_]") -> None:
        from cluster.connect import connect
        from cluster.settings import Settings

        connect(Settings.from_environment())
        import ray
        from ray.data.context import ShuffleStrategy

        # The corpus is a file of this machine and the workers may be elsewhere: the keys go through the object store.
        references: list[Any] = []
        start = 0
        for batch in corpus.batches(bands, KEYS_AT_ONCE):
            references.append(ray.put(_exploded(batch, start, among, PARTS)))
            start += len(batch)
        context = ray.data.DataContext.get_current().copy()
        context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
        context.enable_progress_bars = False
        with ray.data.DataContext.current(context):
            keys = ray.data.from_arrow_refs(references)
            grouped = keys.groupby("part", num_partitions=PARTS).map_groups(_group, batch_format="pyarrow")
        self._shuffled = grouped.materialize()

    def __iter__(self) -> Iterator[Buckets]:
        import numpy as np

        for table in self._shuffled.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not len(table):
                continue
            column = table["rows"].combine_chunks()
            offsets = np.asarray(column.offsets, dtype=np.int64)
            yield Buckets(column.flatten().to_numpy(), offsets - offsets[0])


KEYS_AT_ONCE = 65_536
PARTS = 64
"""Into which the keys are shuffled: of 10^7 rows and 32 bands each holds some 5 million keys, 80 MB."""


def _exploded(batch: "pa.RecordBatch", start: int, among: "NDArray[np.bool_]", parts: int) -> "pa.Table":
    """part, key, row: a row for each band of each row in `among`; keys of different bands differ."""
    import numpy as np
    import pyarrow as pa

    keys, rows = [], []
    for number, column in enumerate(batch.columns):
        own = start + np.flatnonzero(np.asarray(column.is_valid()))
        chosen = among[own]
        # One to one within a band: two keys that differ stay different.
        keys.append((column.drop_null().to_numpy()[chosen] + np.uint64(number)) * np.uint64(2 * number + 1))
        rows.append(own[chosen])
    key, row = np.concatenate(keys), np.concatenate(rows)
    part = (key % np.uint64(parts)).astype(np.int64)
    return pa.table({"part": part, "key": key, "row": row})


def _group(table: Any) -> "pa.Table":
    """The buckets of one part, a list of rows each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.take(pc.sort_indices(table["row"]))
    found = bucketed(table["key"].to_numpy(), table["row"].to_numpy())
    return pa.table({"rows": pa.LargeListArray.from_arrays(found.offsets, found.rows)})
