"""Rows on disk, read back by number: what is too much for memory waits in a file beside the work."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


class SpoolWriter:
    """Writes record batches to a file as they come; inside `with`, `Spool` reads the file after it."""

    def __init__(self, path: Path, schema: "pa.Schema") -> None:
        import pyarrow as pa

        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._sink.close()

    def add(self, batch: "pa.RecordBatch") -> None:
        """The batch's rows after those before it."""
        if len(batch):
            self._writer.write_batch(batch)


class Spool:
    """A written file, mapped into memory: pages come when they are read and go when memory is short."""

    def __init__(self, path: Path) -> None:
        import numpy as np
        import pyarrow as pa

        file = pa.ipc.open_file(pa.memory_map(str(path)))
        self.schema: pa.Schema = file.schema
        self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        self._ends = np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._batches else 0

    def column(self, name: str) -> "pa.ChunkedArray":
        """A whole column, still on disk."""
        import pyarrow as pa

        return pa.chunked_array([batch[name] for batch in self._batches], self.schema.field(name).type)

    def order(self, column: str) -> "NDArray[np.int64]":
        """Numbers of the rows, sorted by a column."""
        import numpy as np
        import pyarrow.compute as pc

        order: NDArray[np.int64] = pc.sort_indices(self.column(column)).to_numpy().astype(np.int64)
        return order

    def take(self, numbers: "NDArray[np.int64]") -> "pa.RecordBatch":
        """These rows in this order, copied into memory.

        Each stored batch is asked once: Arrow's own `take` on a table joins all of its batches first.
        """
        import numpy as np
        import pyarrow as pa

        if not len(numbers):
            return pa.RecordBatch.from_pylist([], self.schema)
        stored = np.searchsorted(self._ends, numbers, side="right")
        grouped = np.argsort(stored, kind="stable")
        parts = []
        for group in np.split(grouped, np.flatnonzero(np.diff(stored[grouped])) + 1):
            batch = self._batches[stored[group[0]]]
            first = self._ends[stored[group[0]]] - len(batch)
            parts.append(batch.take(pa.array(numbers[group] - first)))
        return pa.concat_batches(parts).take(pa.array(np.argsort(grouped)))
