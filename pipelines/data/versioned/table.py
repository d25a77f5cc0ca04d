"""The split as a versioned Delta table: written as a stream, read one side at a time by what comes after."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from cluster.errors import StageFailed, UserError
from pipelines.data.versioned.table_fingerprint import TableDigest, version_1_fingerprint
from pipelines.gates import Report

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

TABLE_VERSION = 2
"""Of the columns: 2 brought rejected, label and fold."""

COLUMNS = (
    "id",
    "messages",
    "rejected",
    "group",
    "label",
    "cluster",
    "source",
    "collector",
    "annotator",
    "created_at",
    "meta",
    "split",
    "fold",
)
"""All text, but for `fold`, a number; one row an example, in no order."""

BATCH_ROWS = 8192

Side = Literal["train", "validation", "test"]

POLICY, STARTS, SCHEMA, DIGEST, CUTOFFS, RESTORED, _MARK = (
    f"sluice.{name}"
    for name in ("policy", "starts_over", "schema_version", "fingerprint", "cutoffs", "restored", "commit")
)
"""What a version's commit says."""


def schema() -> "pa.Schema":
    """Of a table that is written now."""
    import pyarrow as pa

    return pa.schema([(name, pa.int32() if name == "fold" else pa.string()) for name in COLUMNS])


@dataclass(frozen=True)
class Written:
    """A version of the table."""

    uri: str
    version: int
    fingerprint: str


def write_table(
    uri: str,
    batches: "Iterable[pa.RecordBatch]",
    policy: str,
    *,
    starts_over: bool = False,
    cutoffs: tuple[int, int] | None = None,
) -> Written:
    """Store the rows as a new version, with the policy that they were split by.

    After one that `starts_over` the places of the versions before it count no more. `cutoffs`: the times
    (microseconds) by which a temporal split was made. Raises StageFailed when what can be read back is not what was
    written.
    """
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable, write_deltalake

    digest, mark = TableDigest(), uuid4().hex

    def passing() -> "Iterator[pa.RecordBatch]":
        for batch in batches:
            digest.add(batch)
            yield batch

    said = {POLICY: policy, STARTS: str(starts_over).lower(), SCHEMA: str(TABLE_VERSION), _MARK: mark}
    if cutoffs:
        said[CUTOFFS] = ",".join(map(str, cutoffs))
    write_deltalake(
        uri,
        pa.RecordBatchReader.from_batches(schema(), passing()),
        mode="overwrite",
        schema_mode="overwrite",
        commit_properties=CommitProperties(custom_metadata=said),
    )
    # The version that was just written, also when another split of the same recipe wrote one since.
    version = next(commit["version"] for commit in DeltaTable(uri).history() if commit.get(_MARK) == mark)
    if table_fingerprint(uri, version) != digest.hexdigest():
        raise StageFailed(
            f"{uri}: version {version} is not what was written to it.",
            "Look after the storage, then run `sluice split RECIPE` again.",
        )
    return Written(uri, version, digest.hexdigest())


def on_side(batch: "pa.RecordBatch", side: Side, fold: int | None = None) -> "pa.BooleanArray":
    """Which rows of a batch of the table stand on this side.

    With `fold`, its rows of the training side are the validation side, and the other rows of it the training side.
    """
    import pyarrow.compute as pc

    if fold is None or side == "test":
        return pc.equal(batch["split"], side)
    in_fold = pc.fill_null(pc.equal(batch["fold"], fold), False)
    return pc.and_(pc.equal(batch["split"], "train"), in_fold if side == "validation" else pc.invert(in_fold))


def read_side(report: Report, side: Side, fold: int | None = None) -> "pa.Table":
    """The examples of one side of the split that `report` tells of (with `fold` as in `on_side`), ordered by id.

    The whole version is read, but no more than the side is held. Raises UserError when the table is gone or is not
    what the split left.
    """
    import pyarrow as pa

    kept = [batch.filter(on_side(batch, side, fold)) for batch in read_verified(report)]
    return pa.Table.from_batches(kept, schema()).sort_by("id")


def read_verified(report: Report) -> "Iterator[pa.RecordBatch]":
    """All rows of the split that `report` tells of, in no order.

    Raises UserError when the table is gone and, after the last row, when it is not what the split left: who reads on
    to the end has read the right rows.
    """
    uri, version = report.produced["table"], int(report.produced["version"])
    digest = TableDigest()
    for batch in read_batches(uri, version):
        digest.add(batch)
        yield batch
    split = report.produced["split"]
    if digest.hexdigest() != split and version_1_fingerprint(uri, version) != split:
        raise UserError(
            f"{uri}: version {version} is not what the split left.",
            "Something changed the table's files; run `sluice split RECIPE --fresh`.",
        )


def table_fingerprint(uri: str, version: int) -> str:
    """SHA-256 of a version's content, whatever its rows' order (see `TableDigest`)."""
    digest = TableDigest()
    for batch in read_batches(uri, version):
        digest.add(batch)
    return digest.hexdigest()


def read_batches(uri: str, version: int, columns: Sequence[str] = COLUMNS) -> "Iterator[pa.RecordBatch]":
    """One version of the table, some thousand rows at a time; columns that it lacks (version 1) are null.

    Raises UserError when it is gone.
    """
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    wanted = pa.schema([schema().field(name) for name in columns])
    try:
        stored = open_table(uri, version).to_pyarrow_dataset()
        there = [name for name in columns if name in stored.schema.names]
        # Read ahead costs memory, and a split is read while other things are held.
        scanner = stored.scanner(
            columns=there, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1, use_threads=False
        )
        for batch in scanner.to_batches():
            arrays = [
                batch[field.name].cast(field.type) if field.name in there else pa.nulls(len(batch), field.type)
                for field in wanted
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=wanted)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _unreadable(uri, version, error) from None


def read_version(uri: str, version: int, columns: Sequence[str] = COLUMNS) -> "pa.Table":
    """A whole version in memory, ordered by id: for columns that are small. Raises UserError when it is gone."""
    import pyarrow as pa

    names = list(dict.fromkeys((*columns, "id")))
    wanted = pa.schema([schema().field(name) for name in names])
    table = pa.Table.from_batches(read_batches(uri, version, names), wanted)
    return table.sort_by("id").select(list(columns))


def open_table(uri: str, version: int | None = None) -> "DeltaTable":
    """The stored table. Raises UserError, with the versions that exist, when there is no such one."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return DeltaTable(uri, version=version)
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise _unreadable(uri, version, error) from None


def commits(uri: str) -> list[dict[str, Any]]:
    """What each version's commit says, newest first; nothing where there is no table."""
    from deltalake import DeltaTable

    return DeltaTable(uri).history() if DeltaTable.is_deltatable(uri) else []


def eras(listed: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Version -> the one from which its places count, of `commits`: in versions of one era nothing ever moves.

    A new one begins with --fresh and with another policy; a version that restores an earlier one goes back to its era.
    """
    found: dict[int, int] = {}
    before: dict[str, Any] = {}
    for commit in reversed(listed):
        version = commit["version"]
        restored = found.get(int(commit[RESTORED])) if RESTORED in commit else None
        if restored is not None:
            found[version] = restored
        elif commit.get(STARTS) == "true" or not before or commit.get(POLICY) != before.get(POLICY):
            found[version] = version
        else:
            found[version] = found[before["version"]]
        before = commit
    return found


def _unreadable(uri: str, version: int | None, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    named = "the table" if version is None else f"version {version} of the split"
    return UserError(f"{uri}: {named} cannot be read ({reason}).", "Run `sluice split RECIPE --fresh`.")
