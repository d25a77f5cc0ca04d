"""What a table's rows come to, whatever their order: one SHA-256 over those of all rows."""

import hashlib
from typing import TYPE_CHECKING, Any

from pipelines.fingerprint import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

DIGESTED = ("id", "messages", "rejected", "group", "label", "cluster", "split", "fold")
"""What is learnt from and compared; where a row came from may be told better later."""

_SAID_FIRST = b"sluice table 2\n"


class TableDigest:
    """SHA-256 of the sorted SHA-256 of the rows: 32 bytes a row are held, and no order is asked for.

    A sum of the rows' hashes would need no sorting, but with so many addends another table with the same sum can be
    made (Wagner, "A generalized birthday problem", 2002); a hash of all the hashes is as strong as the hash.
    """

    def __init__(self) -> None:
        self._rows: list[bytes] = []

    def add(self, batch: "pa.RecordBatch") -> None:
        """Take these rows in."""
        self._rows.append(row_digests(batch, DIGESTED))

    def hexdigest(self) -> str:
        """Of all rows so far."""
        import numpy as np

        words: NDArray[np.uint64] = np.frombuffer(b"".join(self._rows), ">u8").reshape(-1, 4)
        order = np.lexsort(words.T[::-1])
        return hashlib.sha256(_SAID_FIRST + words[order].tobytes()).hexdigest()


def row_digests(batch: "pa.RecordBatch | pa.Table", columns: tuple[str, ...]) -> bytes:
    """SHA-256 of each row, 32 bytes after 32 bytes: of its cells, each with its length before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts: list[Any] = []
    for name in columns:
        cells = batch[name].cast(pa.string()).cast(pa.binary())
        # A cell that is missing is another one than an empty one.
        parts += [pc.binary_length(cells).cast(pa.string()).fill_null("-").cast(pa.binary()), cells.fill_null(b"")]
    rows = pc.binary_join_element_wise(*parts, b":").to_pylist()
    return b"".join([hashlib.sha256(row).digest() for row in rows])


def version_1_fingerprint(uri: str, version: int) -> str | None:
    """What reports say of a table with the columns of version 1; None for one with newer columns."""
    from pipelines.data.versioned.table import open_table, read_version

    if "fold" in open_table(uri, version).to_pyarrow_dataset().schema.names:
        return None
    table = read_version(uri, version, ("id", "messages", "group", "cluster", "split"))
    columns = [table[name].to_pylist() for name in table.column_names]
    return fingerprint(1, sorted(zip(*columns, strict=True), key=lambda row: row[0]))
