"""The rows of a split as its verifier holds them: hashed keys in arrays, texts in a file, no object a row."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.data.example import text_of
from pipelines.data.leaks.text_store import Kind, Sets, TextStore
from pipelines.data.similarity.duplicates import SHORT_WORDS, normalise

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SIDE_NAMES = ("train", "validation", "test", "benchmark")
"""By code, in the order in which they give way: what leaks is held out of the earlier one."""
TRAIN, BENCHMARK = 0, 3
NOWHERE = -1
"""On no side: held out, or not placed yet."""

_AT_ONCE = 2048


@dataclass(frozen=True)
class Placed:
    """Rows and their sides, and behind them the items of benchmark sets."""

    ids: "pa.ChunkedArray"
    side: "NDArray[np.int64]"
    """Code into SIDE_NAMES, or NOWHERE."""
    keys: "dict[str, NDArray[np.uint64]]"
    """id, text, group, cluster -> 64 bits of a hash of each row's; 0: it has none. Two of a million different
    ones are the same with a probability of 3e-8."""
    words: "NDArray[np.int64]"
    """Of each normalised text."""
    texts: TextStore = field(repr=False)
    rows: int
    """Of the split; the numbers from here on are benchmark items."""

    def __len__(self) -> int:
        return len(self.side)

    @property
    def short(self) -> "NDArray[np.bool_]":
        """Texts that are compared by their characters."""
        found: NDArray[np.bool_] = self.words < SHORT_WORDS
        return found

    def on(self, side: "NDArray[Any]") -> "Placed":
        """The same rows on other sides: a code for each row of the split; one of no side is NOWHERE."""
        import numpy as np

        codes = side.astype(np.int64)
        return self._with(np.where((codes >= 0) & (codes < BENCHMARK), codes, NOWHERE), self.side[self.rows :])

    def apart(self, number: "NDArray[Any]") -> "Placed":
        """The same rows, each number from 0 a side of its own, and no benchmarks."""
        import numpy as np

        return self._with(number.astype(np.int64), np.full(len(self) - self.rows, NOWHERE))

    def _with(self, own: "NDArray[np.int64]", theirs: "NDArray[np.int64]") -> "Placed":
        import numpy as np

        assert len(own) == self.rows, f"{len(own)} sides for {self.rows} rows"
        return replace(self, side=np.concatenate((own, theirs)))

    def once_a_side(self) -> "NDArray[np.bool_]":
        """The first row of each text on each side."""
        import numpy as np

        order = np.lexsort((self.side, self.keys["text"]))
        text, side = self.keys["text"][order], self.side[order]
        first = np.ones(len(order), bool)
        first[1:] = (text[1:] != text[:-1]) | (side[1:] != side[:-1])
        chosen = np.zeros(len(order), bool)
        chosen[order[first & (side != NOWHERE)]] = True
        return chosen

    def sets(self, kind: Kind, wanted: "NDArray[np.bool_]") -> Iterator[Sets]:
        """The sets of the wanted rows' texts."""
        return self.texts.sets(kind, wanted)


def read_placed(
    batches: "Iterable[pa.RecordBatch]", instruction: str = "", benchmarks: "Iterable[tuple[str, str]]" = ()
) -> Placed:
    """The rows of `batches` in their order: columns id and messages; group, cluster and split where they are known.

    `benchmarks`: (name, text) of each item that training must not have seen.
    """
    import numpy as np
    import pyarrow as pa

    texts = TextStore()
    ids: list[Any] = []
    side: list[Any] = []
    keys: dict[str, list[Any]] = {name: [] for name in ("id", "text", "group", "cluster")}

    def keep(normals: list[str]) -> None:
        texts.add(normals)
        keys["text"].append(_hashes(normals))

    for batch in batches:
        ids.append(batch.column("id").cast(pa.string()))
        for name in ("id", "group", "cluster"):
            keys[name].append(_keys_of(batch, name))
        side.append(_sides_of(batch))
        for start in range(0, len(batch), _AT_ONCE):
            messages = batch.column("messages").slice(start, _AT_ONCE).to_pylist()
            keep([normalise(text_of(json.loads(each), instruction)) for each in messages])
    rows = len(texts)
    names: list[str] = []
    for part in _parts(benchmarks):
        keep([normalise(text) for _, text in part])
        names += [name for name, _ in part]
    ids.append(pa.array(names, pa.string()))
    side.append(np.full(len(names), BENCHMARK))
    for name in ("id", "group", "cluster"):
        keys[name].append(np.zeros(len(names), np.uint64))
    return Placed(
        ids=pa.chunked_array(ids, pa.string()),
        side=np.concatenate(side).astype(np.int64),
        keys={name: np.concatenate([np.zeros(0, np.uint64), *found]) for name, found in keys.items()},
        words=texts.lengths,
        texts=texts,
        rows=rows,
    )


def _parts(items: "Iterable[tuple[str, str]]") -> "Iterator[list[tuple[str, str]]]":
    from itertools import islice

    waiting = iter(items)
    while part := list(islice(waiting, _AT_ONCE)):
        yield part


def _sides_of(batch: "pa.RecordBatch") -> "NDArray[np.int64]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "split" not in batch.schema.names:
        return np.full(len(batch), NOWHERE)
    found = pc.index_in(batch.column("split").cast(pa.string()), pa.array(SIDE_NAMES[:BENCHMARK]))
    codes: NDArray[np.int64] = found.fill_null(NOWHERE).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _keys_of(batch: "pa.RecordBatch", name: str) -> "NDArray[np.uint64]":
    import numpy as np
    import pyarrow as pa

    if name not in batch.schema.names:
        return np.zeros(len(batch), np.uint64)
    encoded = batch.column(name).cast(pa.string()).dictionary_encode()
    values = encoded.dictionary.to_pylist()
    # Behind the last one, where -1 points: rows that have none.
    hashes = np.append(_hashes(values), np.uint64(0))
    hashes[:-1][[not value for value in values]] = 0
    found: NDArray[np.uint64] = hashes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return found


def _hashes(texts: list[str]) -> "NDArray[np.uint64]":
    """64 bits of BLAKE2b of each, never 0."""
    import numpy as np

    data = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.maximum(np.frombuffer(data, "<u8").astype(np.uint64), np.uint64(1))
