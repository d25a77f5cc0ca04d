"""Files as rows: JSONL, JSON, CSV and Parquet, decoded only when that is certain, and never beyond the caps."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from cluster.errors import UserError
from pipelines.data.reading.sources import SourceFile, opened

CAP_BYTES = 8 * 2**30
"""The most that one file may unpack to."""
CAP_RATIO = 100
"""The most bytes that one stored byte may unpack to (beyond FREE_BYTES)."""
FREE_BYTES = 64 * 2**20
"""Up to here nobody is harmed, whatever the ratio."""
CAP_DOCUMENT = 2**30
"""The largest JSON or UTF-16 document, which is held in memory whole."""
CAP_ROWS_PER_BYTE = 64
"""The most Parquet rows that one stored byte may stand for."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in the file."""

    position: int
    """Row or line, from 1."""
    value: dict[str, Any] | None
    """Its columns, or None with a problem."""
    problem: str = ""
    text: str = ""
    """The row as text where it could not be parsed."""


class FileProblem(UserError):
    """A file that cannot be read at all: its name and what is wrong with it."""


def raw_rows(file: SourceFile) -> Iterator[RawRow]:
    """The rows of a file in their order. Raises FileProblem when the file as a whole cannot be read."""
    if not file.size:
        raise FileProblem(f"{file.name}: the file is empty (0 bytes).", "Put examples into it, or leave it out.")
    readers = {".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    try:
        yield from readers.get(file.suffix, _jsonl)(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileProblem(f"{file.name}: the gzip is damaged or cut short ({error}).", "Copy the file again.") from None
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise FileProblem(f"{file.name}: the file cannot be read ({reason}).", "Check its place and rights.") from None


class _Capped(io.RawIOBase):
    """A decompressed stream that stops at the caps."""

    def __init__(self, stream: IO[bytes], file: SourceFile) -> None:
        self._stream, self._file, self._read = stream, file, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; raises FileProblem beyond the caps."""
        data = self._stream.read(len(buffer))
        self._read += len(data)
        _check_caps(self._file, self._read)
        buffer[: len(data)] = data
        return len(data)


def _check_caps(file: SourceFile, unpacked: int) -> None:
    if unpacked > CAP_BYTES or (unpacked > FREE_BYTES and unpacked > CAP_RATIO * file.size):
        raise FileProblem(
            f"{file.name}: {file.size:,} bytes unpack to more than {min(unpacked, CAP_BYTES):,} "
            f"(the caps: {CAP_RATIO}:1 and {CAP_BYTES // 2**30} GiB).",
            "Unpack it yourself if you trust it, in several files.",
        )


@contextmanager
def _unpacked(file: SourceFile) -> Iterator[io.BufferedReader]:
    with opened(file) as stream:
        if file.is_compressed:
            yield io.BufferedReader(_Capped(cast("IO[bytes]", gzip.GzipFile(fileobj=stream)), file), 2**20)
        else:
            yield io.BufferedReader(cast(io.RawIOBase, stream), 2**20)


def _encoding(head: bytes, file: SourceFile) -> tuple[str, int]:
    """The encoding that the first bytes settle, and the length of the mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    if head[:4096].count(0) * 5 > len(head[:4096]):
        raise FileProblem(
            f"{file.name}: every other byte is NUL: UTF-16 or UTF-32 without a byte-order mark, or no text.",
            "Save it as UTF-8.",
        )
    return "utf-8", 0


def lines(file: SourceFile) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends. Raises FileProblem at the first byte that is certainly no text."""
    with _unpacked(file) as stream:
        head = stream.peek(4096)
        encoding, skip = _encoding(head, file)
        if encoding != "utf-8":
            data = stream.read(CAP_DOCUMENT + 1)
            # Only a line feed ends a line: JSON texts may hold the other separators of Unicode.
            yield from enumerate(io.StringIO(_decoded(data, encoding, file).removeprefix("\ufeff"), newline="\n"), 1)
            return
        stream.read(skip)
        offset = skip
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _undecodable(file, offset + error.start, line[error.start], f" (line {number})") from None
            offset += len(line)


def _decoded(data: bytes, encoding: str, file: SourceFile) -> str:
    if len(data) > CAP_DOCUMENT:
        raise _too_large(file)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(file, error.start, data[error.start], "", encoding) from None


def _too_large(file: SourceFile) -> FileProblem:
    return FileProblem(
        f"{file.name}: a document of this kind may have {CAP_DOCUMENT // 2**20} MiB.",
        "Save it as JSONL in UTF-8, which is read line by line.",
    )


def _undecodable(file: SourceFile, position: int, byte: int, where: str, encoding: str = "utf-8") -> FileProblem:
    return FileProblem(
        f"{file.name}: byte {position:,}{where} is 0x{byte:02x}, which is no {encoding.upper()}; "
        "any other encoding would be a guess.",
        "Convert it, as in `iconv -f LATIN1 -t UTF-8`, with the encoding that it was written in.",
    )


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands twice in an object")
    return row


def _parsed(text: str) -> Any:
    """What the JSON text holds; raises ValueError with the reason."""
    try:
        return json.loads(text, object_pairs_hook=_no_twins)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _jsonl(file: SourceFile) -> Iterator[RawRow]:
    for number, line in lines(file):
        if not line.strip():
            continue
        try:
            value = _parsed(line)
        except ValueError as error:
            cut = "" if line.endswith("\n") else " (the last line, without an end: cut short?)"
            yield RawRow(number, None, f"line {number} is no JSON{cut}: {error}", line)
            continue
        if isinstance(value, dict):
            yield RawRow(number, value)
        else:
            yield RawRow(number, None, f"line {number} holds no object", line)


def _json(file: SourceFile) -> Iterator[RawRow]:
    parts, length = [], 0
    for _, line in lines(file):
        parts.append(line)
        length += len(line)
        if length > CAP_DOCUMENT:
            raise _too_large(file)
    try:
        content = _parsed("".join(parts))
    except ValueError as error:
        several = str(error).startswith("Extra data")
        remedy = "With an object on each line it is JSONL: call it .jsonl." if several else "Correct it at that place."
        raise FileProblem(f"{file.name}: no JSON: {error}.", remedy) from None
    if not isinstance(content, list):
        raise FileProblem(
            f"{file.name}: a JSON file holds one list of objects.", "Or save it as JSONL, an object on each line."
        )
    for number, value in enumerate(content, 1):
        if isinstance(value, dict):
            yield RawRow(number, value)
        else:
            yield RawRow(number, None, f"item {number} is no object", str(value))


def _csv(file: SourceFile) -> Iterator[RawRow]:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    reader = csv.reader((line for _, line in lines(file)), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _check_header(header, delimiter, file)
        for number, fields in enumerate(reader, 1):
            if not fields:
                continue
            if len(fields) == len(header):
                yield RawRow(number, dict(zip(header, fields, strict=True)))
            else:
                yield RawRow(
                    number,
                    None,
                    f"row {number} (line {reader.line_num}) has {len(fields)} fields, the header {len(header)}",
                    json.dumps(fields, ensure_ascii=False),
                )
    except csv.Error as error:
        # A quote that is never closed swallows all that follows: nothing after it can be trusted.
        raise FileProblem(
            f"{file.name}: line {reader.line_num}: {error}.", "Correct the quotes from that line on."
        ) from None


def _check_header(header: list[str], delimiter: str, file: SourceFile) -> None:
    twins = sorted({name for name in header if header.count(name) > 1})
    if twins:
        raise FileProblem(f"{file.name}: the column {', '.join(twins)} stands twice.", "Rename one of them.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|,"):
        raise FileProblem(
            f"{file.name}: the header {header[0]!r} is not separated by {delimiter!r}.",
            "Save it with commas (.csv) or tabs (.tsv).",
        )


def _parquet(file: SourceFile) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(file) as stream:
        try:
            table = pq.ParquetFile(stream, memory_map=False)
            _check_parquet(table, file)
            position, unpacked = 0, 0
            for batch in table.iter_batches(batch_size=256):
                unpacked += batch.nbytes
                _check_caps(file, unpacked)
                for value in batch.to_pylist():
                    position += 1
                    yield RawRow(position, value)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise FileProblem(
                f"{file.name}: no readable Parquet ({str(error).splitlines()[0]}).", "Write or copy the file again."
            ) from None


def _check_parquet(table: Any, file: SourceFile) -> None:
    import pyarrow as pa

    names = table.schema_arrow.names
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise FileProblem(f"{file.name}: the column {', '.join(twins)} stands twice.", "Rename one of them.")

    def binary(kind: Any) -> bool:
        if isinstance(kind, pa.BaseExtensionType):
            return binary(kind.storage_type)
        if pa.types.is_dictionary(kind):
            return binary(kind.value_type)
        raw = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
        if any(holds(kind) for holds in raw):
            return True
        return any(binary(kind.field(i).type) for i in range(kind.num_fields))

    found = [field.name for field in table.schema_arrow if binary(field.type)]
    if found:
        raise FileProblem(
            f"{file.name}: {', '.join(found)} holds raw bytes, in which pickled objects hide; they are never read.",
            "Remove the column, or store text.",
        )
    metadata = table.metadata
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    _check_caps(file, unpacked)
    if metadata.num_rows > 1_000_000 and metadata.num_rows > CAP_ROWS_PER_BYTE * file.size:
        raise FileProblem(
            f"{file.name}: {metadata.num_rows:,} rows in {file.size:,} bytes.", "Split the file if you trust it."
        )
