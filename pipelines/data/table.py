"""The split as a versioned Delta table: written by `sluice split`, read one side at a time by what comes after."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cluster.errors import UserError
from pipelines.data.example import Example
from pipelines.data.splitting import History, Place
from pipelines.fingerprint import fingerprint
from pipelines.gates import Report

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_VERSION = 1
"""Of the columns."""

COLUMNS = (
    "id",
    "messages",
    "group",
    "cluster",
    "source",
    "collector",
    "annotator",
    "created_at",
    "meta",
    "split",
)
"""All text; one row an example, ordered by id."""

Side = Literal["train", "validation", "test"]

_POLICY, _START, _SCHEMA = "sluice.policy", "sluice.starts_over", "sluice.schema_version"


def read_side(report: Report, side: Side) -> "pa.Table":
    """The examples of one side of the split that `report` tells of, ordered by id.

    Raises UserError when the table is gone or is not what the split left.
    """
    import pyarrow.compute as pc

    table = read_version(report.produced["table"], int(report.produced["version"]))
    if table_fingerprint(table) != report.produced["split"]:
        raise UserError(
            f"{report.produced['table']}: version {report.produced['version']} is not what the split left.",
            "Something changed the table's files; run `sluice split RECIPE --fresh`.",
        )
    return table.filter(pc.equal(table["split"], side))


def make_table(examples: Iterable[Example], places: dict[str, Place]) -> "pa.Table":
    """The rows of the split."""
    import pyarrow as pa

    rows = [
        {
            "id": example.id,
            "messages": example.messages,
            "group": example.group,
            "cluster": places[example.id].cluster,
            "source": example.source,
            "collector": example.collector,
            "annotator": example.annotator,
            "created_at": example.created_at,
            "meta": example.meta,
            "split": places[example.id].side,
        }
        for example in sorted(examples, key=lambda example: example.id)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))


def table_fingerprint(table: "pa.Table") -> str:
    """SHA-256 of what is learnt from and compared: ids, conversations, groups, clusters and sides, by id."""
    names = ("id", "messages", "group", "cluster", "split")
    columns = [table[name].to_pylist() for name in names]
    return fingerprint(TABLE_VERSION, sorted(zip(*columns, strict=True), key=lambda row: row[0]))


def write_table(uri: str, table: "pa.Table", policy: str, *, starts_over: bool = False) -> int:
    """Store `table` as a new version, with the policy that it was split by; the version's number.

    After one that `starts_over` the places of the versions before it count no more.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake

    write_deltalake(
        uri,
        table,
        mode="overwrite",
        schema_mode="overwrite",
        commit_properties=CommitProperties(
            custom_metadata={_POLICY: policy, _START: str(starts_over).lower(), _SCHEMA: str(TABLE_VERSION)}
        ),
    )
    # The version that was just written, also when another split of the same recipe wrote one since.
    wanted = table_fingerprint(table)
    newest = DeltaTable(uri).version()
    for version in range(newest, -1, -1):
        if table_fingerprint(read_version(uri, version)) == wanted:
            return version
    raise AssertionError(f"{uri}: the version that was written is not there")


def read_version(uri: str, version: int, columns: Sequence[str] = COLUMNS) -> "pa.Table":
    """One version of the table. Raises UserError when it is gone."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        stored = DeltaTable(uri, version=version)
        table = stored.to_pyarrow_table(columns=list(columns))
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise UserError(
            f"{uri}: version {version} of the split cannot be read ({str(error).splitlines()[0]}).",
            "Run `sluice split RECIPE --fresh`.",
        ) from None
    plain = pa.schema([(name, pa.string()) for name in columns])
    return table.select(list(columns)).cast(plain).sort_by("id")


@dataclass(frozen=True)
class Past:
    """What earlier versions of the table say."""

    history: History = field(default_factory=History)
    groups: dict[str, str | None] = field(default_factory=dict)
    """Id -> group of what the last version holds."""
    started_over: bool = False
    """Whether there are versions, but of another policy, so that nothing of them counts."""


def read_past(uri: str, policy: str) -> Past:
    """The places that versions of the same policy gave; older versions count for what is gone since."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(uri):
        return Past()
    commits = DeltaTable(uri).history()
    present: dict[str, Place] | None = None
    groups: dict[str, str | None] = {}
    gone: dict[str, Place] = {}
    for commit in commits:
        if commit.get(_POLICY) != policy:
            break
        version = read_version(uri, commit["version"], ("id", "group", "cluster", "split"))
        rows = version.to_pylist()
        places = {row["id"]: Place(row["cluster"], row["split"]) for row in rows}
        if present is None:
            present, groups = places, {row["id"]: row["group"] for row in rows}
        else:
            gone = places | gone
        if commit.get(_START) == "true":
            break
    history = History(present or {}, {id: place for id, place in gone.items() if id not in (present or {})})
    return Past(history, groups, present is None)
