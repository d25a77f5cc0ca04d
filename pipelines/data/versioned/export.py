"""A version of a split as a file for other tools."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipelines.data.versioned.table import read_batches, schema
from pipelines.data.versioned.versions import check_version

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA = r"^[=+\-@\t\r\n]"
"""How a cell begins that a spreadsheet would compute (OWASP, "CSV injection")."""


def export(uri: str, version: int, path: Path, side: str | None = None) -> int:
    """Write a version to a new CSV, JSONL or Parquet file, some thousand rows at a time; the number of rows.

    In CSV a cell that a spreadsheet would take for a formula has ' before it. Raises UserError for another ending,
    a file that exists, or one that cannot be written.
    """
    import pyarrow.compute as pc

    check_version(uri, version)
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}.get(path.suffix.lower())
    if write is None:
        raise UserError(
            f"{path}: the ending {path.suffix!r} names no format that is written.",
            "Name a file that ends with .csv, .jsonl or .parquet.",
        )
    if path.exists():
        raise UserError(f"{path} exists already; it is left as it is.", "Name another file.")
    batches = read_batches(uri, version)
    if side is not None:
        batches = (batch.filter(pc.equal(batch["split"], side)) for batch in batches)
    rows = 0

    def counted() -> "Iterator[pa.RecordBatch]":
        nonlocal rows
        for batch in batches:
            rows += len(batch)
            yield batch

    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial, counted())
        partial.rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.", "Name a file that can.") from None
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _write_csv(path: Path, batches: "Iterator[pa.RecordBatch]") -> None:
    import pyarrow as pa
    from pyarrow import csv

    with csv.CSVWriter(str(path), schema()) as writer:
        for batch in batches:
            cells = [inert(column) if pa.types.is_string(column.type) else column for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(cells, schema=schema()))


def inert(cells: "pa.Array") -> "pa.Array":
    """Text cells with ' before those that begin as a formula does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    risky = pc.match_substring_regex(cells, FORMULA).fill_null(False)
    return pc.if_else(risky, pc.binary_join_element_wise(pa.scalar("'"), cells, ""), cells)


def _write_jsonl(path: Path, batches: "Iterator[pa.RecordBatch]") -> None:
    import json

    with path.open("w", encoding="utf-8") as stream:
        for batch in batches:
            for row in batch.to_pylist():
                # As objects, so that other tools need not parse text within text.
                row |= {name: json.loads(row[name]) for name in ("messages", "meta", "rejected") if row[name]}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, batches: "Iterator[pa.RecordBatch]") -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema(), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
