"""A dataset's rows on disk, in columns: what the audit and the split stream over, whatever the size.

A corpus is a folder of the rows, of those that could not be read and of a note. A row's number is its place in
the file: the order of source files and positions. Everything that is computed about rows later (clusters, scores,
sides) is an array over these numbers.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

ROW_GROUP = 8192
"""Rows that are written, and read, together: one page of the panel and one sample cost no more than this."""


@dataclass(frozen=True)
class Note:
    """What a corpus is of."""

    dataset: str
    """`dataset_fingerprint` after the last row was read."""
    driver: str
    """Who read: `one process` or `Ray Data`."""
    left_out: int
    """Readable rows beyond `max_examples`."""
    tokenizer: str | None = None
    """Name of the base whose tokenizer counted the tokens; None: they are null."""


class Corpus:
    """Rows in columns, read from a folder that `CorpusWriter` left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def note(self) -> Note:
        """What it is of."""
        return Note(**json.loads((self.folder / "corpus.json").read_text("utf-8")))

    @cached_property
    def _file(self) -> "pq.ParquetFile":
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.folder / "rows.parquet", memory_map=False)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._file.schema_arrow.names)

    @cached_property
    def bad(self) -> "pa.Table":
        """The rows that were kept aside: the fields of `BadRow`, contents cut as they are there."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / "bad.parquet")

    def batches(self, columns: Sequence[str], size: int = ROW_GROUP) -> "Iterator[pa.RecordBatch]":
        """All rows of these columns in their order, at most `size` at a time."""
        # Threads decode columns ahead of need: on a small machine that is memory for nothing.
        yield from self._file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)

    def column(self, name: str) -> "pa.ChunkedArray":
        """One whole column: for what is small in every row (numbers, hashes, keys)."""
        return self._file.read(columns=[name], use_threads=False)[name]

    def array(self, name: str) -> "NDArray[Any]":
        """One whole column of numbers without nulls, as numpy."""
        found: NDArray[Any] = self.column(name).to_numpy()
        return found

    def codes(self, name: str) -> "tuple[NDArray[np.int64], list[Any]]":
        """For each row the number of its value among the distinct ones (-1: null), and these, by first sight."""
        import numpy as np
        import pyarrow as pa

        encoded = self.column(name).combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return indices.astype(np.int64), encoded.dictionary.to_pylist()

    def numbers(self, name: str) -> "NDArray[np.int64]":
        """For each row the number of its value among the distinct ones (-1: null), for columns of many values."""
        import numpy as np
        import pyarrow as pa

        column = self.column(name).combine_chunks()
        if pa.types.is_fixed_size_binary(column.type):
            column = column.cast(pa.binary())
        indices = column.dictionary_encode().indices.fill_null(-1)
        found: NDArray[np.int64] = indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return found

    def rows_with_ids(self, ids: Sequence[str]) -> "NDArray[np.int64]":
        """Every row that has one of these ids, ascending."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not ids:
            return np.zeros(0, np.int64)
        found: NDArray[np.int64] = np.flatnonzero(pc.is_in(self.column("id"), value_set=pa.array(ids)).to_numpy())
        return found

    def take(self, rows: "Sequence[int] | NDArray[np.int64]", columns: Sequence[str]) -> "pa.Table":
        """These rows, in the order asked for; reads only the row groups that hold them."""
        import numpy as np
        import pyarrow as pa

        wanted = np.asarray(rows, np.int64)
        names = list(columns)
        if not len(wanted):
            return self._file.schema_arrow.empty_table().select(names)
        ends = np.cumsum([self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)])
        group_of = np.searchsorted(ends, wanted, side="right")
        parts, order = [], []
        for group in np.unique(group_of):
            places = np.flatnonzero(group_of == group)
            start = int(ends[group - 1]) if group else 0
            table = self._file.read_row_group(int(group), columns=names, use_threads=False)
            parts.append(table.take(wanted[places] - start))
            order.append(places)
        return pa.concat_tables(parts).take(np.argsort(np.concatenate(order), kind="stable"))


class CorpusWriter:
    """Writes a corpus, complete or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        self._writer: pq.ParquetWriter | None = None
        self._bad: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> "CorpusWriter":
        return self

    def write(self, table: "pa.Table") -> None:
        """Append rows; the first call settles the columns."""
        self._waiting.append(table)
        self._rows += len(table)
        if self._rows >= ROW_GROUP:
            self._flush(whole_groups=True)

    def write_bad(self, table: "pa.Table") -> None:
        """Append rows that could not be read; the first call, with rows or none, settles the columns."""
        import pyarrow.parquet as pq

        if self._bad is None:
            self._bad = pq.ParquetWriter(self._partial / "bad.parquet", table.schema, compression="zstd")
        if len(table):
            self._bad.write_table(table)

    def finish(self, note: Note, keep: "NDArray[np.bool_] | None" = None) -> Corpus:
        """Close the files and put the folder in its place; the corpus, of the rows to `keep` alone where given."""
        self.close()
        if keep is not None:
            self._filter(keep)
        (self._partial / "corpus.json").write_text(json.dumps(asdict(note)), "utf-8")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._partial.rename(self.folder)
        return Corpus(self.folder)

    def close(self) -> Corpus:
        """Write what waits and close the files; the rows so far, for whoever must choose among them."""
        self._flush(whole_groups=False)
        assert self._writer is not None and self._bad is not None, "a corpus needs a table of each, were it empty"
        self._writer.close()
        self._bad.close()
        return Corpus(self._partial)

    def _filter(self, keep: "NDArray[np.bool_]") -> None:
        import pyarrow as pa

        everything = Corpus(self._partial)
        columns = everything.columns
        # It is open by now, and stays so under another name.
        (self._partial / "rows.parquet").rename(self._partial / "all.parquet")
        self._writer, start = None, 0
        for batch in everything.batches(columns):
            self.write(pa.Table.from_batches([batch.filter(pa.array(keep[start : start + len(batch)]))]))
            start += len(batch)
        self.close()
        (self._partial / "all.parquet").unlink()

    def _flush(self, *, whole_groups: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial / "rows.parquet", table.schema, compression="zstd")
        size = len(table) - len(table) % ROW_GROUP if whole_groups else len(table)
        if size or not len(table):
            self._writer.write_table(table.slice(0, size), row_group_size=ROW_GROUP)
        rest = table.slice(size)
        self._waiting, self._rows = ([rest] if len(rest) else []), len(rest)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in (self._writer, self._bad):
            if writer is not None:
                writer.close()
        shutil.rmtree(self._partial, ignore_errors=True)
