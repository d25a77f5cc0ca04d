"""The versions of a split: listed, compared, shown, restored."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines.data.sides.past import lookup
from pipelines.data.sides.splitting import PLACES
from pipelines.data.versioned.table import (
    COLUMNS,
    POLICY,
    RESTORED,
    STARTS,
    commits,
    eras,
    open_table,
    read_batches,
    schema,
)
from pipelines.data.versioned.table_fingerprint import row_digests

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_COMPARED = tuple(name for name in COLUMNS if name not in ("id", "split"))
_SAID = ("group", "label", "source", "annotator", "created_at")
TEXT_LENGTH = 200
"""Characters of a conversation that are shown."""


@dataclass(frozen=True)
class Version:
    """A version of the table."""

    version: int
    created_at: datetime
    rows: dict[str, int]
    """Place -> its rows."""
    policy: str
    """Fingerprint of the rules that its sides were drawn by."""
    starts_over: bool
    """Whether the places of the versions before it count no more."""
    restored: int | None
    """The version that it restores."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}


@dataclass(frozen=True)
class Difference:
    """What is in the later of two versions and not in the earlier; ids of the first rows of each kind."""

    added: int
    removed: int
    changed: int
    """Of the same conversation on the same side another group, cluster, label, origin, fold, or masked text."""
    moved: int
    """On another side than before: must be none while the policy is the same."""
    started_over: bool
    """Whether the places of the two go back to different starts: then moves are no mistake."""
    ids: dict[str, list[dict[str, Any]]]
    """Kind -> rows as plain values, at most as many as were asked for."""

    @property
    def problem(self) -> str | None:
        """Why the later version must not be, in a sentence."""
        if not self.moved or self.started_over:
            return None
        return f"{self.moved:,} examples moved between sides under one policy: models of the two do not compare."


def log(uri: str) -> list[Version]:
    """The versions, newest first. Raises UserError where there is no table."""
    _there(uri)
    return [_version(uri, commit) for commit in commits(uri)]


def _version(uri: str, commit: dict[str, Any]) -> Version:
    return Version(
        version=commit["version"],
        created_at=datetime.fromtimestamp(commit["timestamp"] / 1000, UTC),
        rows=_sizes(uri, commit["version"]),
        policy=str(commit.get(POLICY, "")),
        starts_over=commit.get(STARTS) == "true",
        restored=int(commit[RESTORED]) if RESTORED in commit else None,
    )


def diff(uri: str, before: int, after: int, limit: int = 5, kinds: Collection[str] = ()) -> Difference:
    """What happened to the rows from one version to another; see `show` for `kinds`."""
    import numpy as np

    check_version(uri, before)
    check_version(uri, after)
    old, new = _Rows.read(uri, before), _Rows.read(uri, after)
    place, known = lookup(new.ids, old.ids)
    here = np.flatnonzero(known)
    other_side = old.side[place] != new.side[here]
    other_cells = (old.digest[place] != new.digest[here]).any(axis=1)
    gone = np.ones(len(old.ids), np.bool_)
    gone[place] = False
    kinds = {
        "added": (after, new.ids, np.flatnonzero(~known)),
        "removed": (before, old.ids, np.flatnonzero(gone)),
        "changed": (after, new.ids, here[other_cells & ~other_side]),
        "moved": (after, new.ids, here[other_side]),
    }
    shown = {}
    for kind, (version, ids, rows) in kinds.items():
        listed = sorted(ids.take(rows[:limit]).to_pylist())
        shown[kind] = _rows_of(uri, version, listed, kinds) if listed else []
    sides = dict(zip(new.ids.take(here[other_side]).to_pylist(), old.side[place][other_side], strict=True))
    for row in shown["moved"]:
        row["before"] = PLACES[sides[row["id"]]]
    counts = {kind: len(rows) for kind, (_, _, rows) in kinds.items()}
    era = eras(commits(uri))
    return Difference(**counts, started_over=era[before] != era[after], ids=shown)


def show(
    uri: str, version: int, side: str | None = None, limit: int = 10, kinds: Collection[str] = ()
) -> tuple[Version, list[dict[str, Any]]]:
    """(the version, its first rows, of one side where asked). Raises UserError for an unknown version or side.

    `kinds` of personal data are masked in the rows, beside the ones that rules find.
    """
    import pyarrow.compute as pc

    check_version(uri, version)
    if side is not None and side not in PLACES:
        raise UserError(f"{side!r} is no side.", f"The sides: {', '.join(PLACES)}.")
    found: list[dict[str, Any]] = []
    for batch in read_batches(uri, version):
        if len(found) >= limit:
            break
        if side is not None:
            batch = batch.filter(pc.equal(batch["split"], side))
        found += [_shown(row, kinds) for row in batch.slice(0, limit - len(found)).to_pylist()]
    return next(_version(uri, commit) for commit in commits(uri) if commit["version"] == version), found


def restore(uri: str, version: int) -> int:
    """Append a version equal to `version`; its number. Nothing is lost: those between stay."""
    from deltalake import CommitProperties

    check_version(uri, version)
    listed = commits(uri)
    if listed[0]["version"] == version:
        raise UserError(f"Version {version} is the newest: there is nothing to restore.", _versions(uri))
    said = next(commit for commit in listed if commit["version"] == version)
    kept = {name: str(value) for name, value in said.items() if name.startswith("sluice.")}
    properties = CommitProperties(custom_metadata=kept | {RESTORED: str(version)})
    open_table(uri).restore(version, commit_properties=properties)
    return int(commits(uri)[0]["version"])


def check_version(uri: str, version: int) -> None:
    """Raise UserError, with those that exist, when there is no such version."""
    _there(uri)
    if version not in {commit["version"] for commit in commits(uri)}:
        raise UserError(f"{uri}: there is no version {version}.", _versions(uri))


def newest(uri: str) -> int:
    """Number of the last version. Raises UserError where there is no table."""
    _there(uri)
    return int(commits(uri)[0]["version"])


def _versions(uri: str) -> str:
    numbers = [str(commit["version"]) for commit in commits(uri)]
    more = f" and {len(numbers) - 20} older ones" if len(numbers) > 20 else ""
    return f"There are: {', '.join(numbers[:20])}{more}."


def _there(uri: str) -> None:
    if not commits(uri):
        raise UserError(f"{uri}: there is no split yet.", "Run `sluice split RECIPE` first.")


def _sizes(uri: str, version: int) -> dict[str, int]:
    import pyarrow.compute as pc

    counts = dict.fromkeys(PLACES, 0)
    for batch in read_batches(uri, version, ("split",)):
        for count in pc.value_counts(batch["split"]).to_pylist():
            counts[count["values"]] += count["counts"]
    return counts


@dataclass(frozen=True)
class _Rows:
    """A version's rows in some 110 bytes each."""

    ids: "pa.Array"
    side: "NDArray[np.int8]"
    digest: "NDArray[np.uint64]"
    """Of all that is compared, of shape (rows, 4)."""

    @classmethod
    def read(cls, uri: str, version: int) -> "_Rows":
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        ids, sides, digests = [pa.array([], pa.string())], [np.zeros(0, np.int8)], [b""]
        for batch in read_batches(uri, version):
            ids.append(batch["id"])
            sides.append(pc.index_in(batch["split"], pa.array(PLACES)).to_numpy(zero_copy_only=False).astype(np.int8))
            digests.append(row_digests(batch, _COMPARED))
        digest = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 4)
        return cls(pa.concat_arrays(ids), np.concatenate(sides), digest)


def _rows_of(uri: str, version: int, ids: list[str], kinds: Collection[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(ids)
    parts = [batch.filter(pc.is_in(batch["id"], wanted)) for batch in read_batches(uri, version)]
    return [_shown(row, kinds) for row in pa.Table.from_batches(parts, schema()).sort_by("id").to_pylist()]


def _shown(row: dict[str, Any], kinds: Collection[str]) -> dict[str, Any]:
    """A row for people: its beginning, personal data masked wherever they stand."""
    import json

    from pipelines.data.auditing.samples import masked
    from pipelines.data.example import text_of

    said = {name: row[name] and masked(row[name], TEXT_LENGTH, kinds) for name in _SAID}
    text = masked(text_of(json.loads(row["messages"])), TEXT_LENGTH, kinds)
    return {name: row[name] for name in ("id", "split", "cluster", "fold")} | said | {"text": text}
