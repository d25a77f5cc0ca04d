"""What earlier versions of a split's table say: the places that were given, and what was ever tested."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.sides.splitting import NEWCOMER, PLACES, History
from pipelines.data.versioned.table import CUTOFFS, POLICY, commits, eras, read_batches, read_version

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("id", "group", "cluster", "split")


@dataclass(frozen=True)
class Past:
    """The places of before; tables of id, group, cluster and split."""

    present: "pa.Table | None" = None
    """What the last version holds."""
    gone: "pa.Table | None" = None
    """What only earlier versions of the same policy held, each as the newest of them had it."""
    cutoffs: tuple[int, int] | None = None
    """The times of a temporal split."""
    started_over: bool = False
    """Whether there are versions, but of another policy, so that nothing of them counts."""

    def history(self, ids: "pa.Array") -> History:
        """For each of `ids` the place that it had."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        side = np.full(len(ids), NEWCOMER, np.int8)
        cluster = np.zeros(len(ids), "S1")
        returns = np.zeros(len(ids), np.bool_)
        for table, back in ((self.gone, True), (self.present, False)):
            if table is None or not len(table):
                continue
            place, known = lookup(ids, table["id"])
            found = pc.index_in(table["split"], pa.array(PLACES)).to_numpy().astype(np.int8)[place]
            # Ids of clusters are hexadecimal digits: bytes of one length.
            names = np.array(table["cluster"].to_pylist(), np.bytes_)[place]
            cluster = cluster.astype(max(cluster.dtype, names.dtype))
            side[known], cluster[known], returns[known] = found, names, back
        return History(side, cluster, returns)

    def groups(self, ids: "pa.Array") -> "tuple[pa.Array, Any]":
        """(for each of `ids` the group that it had in the last version, which of them are known there)."""
        import numpy as np
        import pyarrow as pa

        if self.present is None:
            return pa.nulls(len(ids), pa.string()), np.zeros(len(ids), np.bool_)
        place, known = lookup(ids, self.present["id"])
        group = pa.nulls(len(ids), pa.string())
        if known.any():
            full = np.zeros(len(ids), np.int64)
            full[known] = place
            group = self.present["group"].combine_chunks().take(pa.array(full, mask=~known))
        return group, known


def lookup(ids: "pa.Array", among: "pa.ChunkedArray") -> "tuple[Any, Any]":
    """(places in `among` of those `ids` that stand there, which of `ids` these are), as numpy."""
    import numpy as np
    import pyarrow.compute as pc

    found = pc.index_in(ids, among).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = found >= 0
    return found[known], known


def read_past(uri: str, policy: str) -> Past:
    """The places that versions of the newest one's era gave, if its policy is the same.

    Older ones count for what is gone since.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    present: pa.Table | None = None
    gone: list[pa.Table] = []
    cutoffs = None
    listed = commits(uri)
    era, same = eras(listed), bool(listed) and listed[0].get(POLICY) == policy
    for commit in listed if same else ():
        if era[commit["version"]] != era[listed[0]["version"]]:
            continue
        version = read_version(uri, commit["version"], _COLUMNS)
        if present is None:
            present = version
            cutoffs = tuple(int(part) for part in commit[CUTOFFS].split(",")) if CUTOFFS in commit else None
        else:
            for seen in (present, *gone):
                version = version.filter(pc.invert(pc.is_in(version["id"], seen["id"])))
            gone += [version] if len(version) else []
    earlier = pa.concat_tables(gone) if gone else None
    return Past(present, earlier, cutoffs, started_over=bool(listed) and present is None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tested:
    """What was ever on the test side, under whatever policy."""

    ids: "pa.Array"
    groups: "pa.Array"
    messages: "pa.Array"

    def texts(self, instruction: str, without: "pa.Array") -> Iterator[tuple[str, str]]:
        """(name, text) of each example that is not among the ids `without`."""
        import json

        import pyarrow.compute as pc

        from pipelines.data.example import text_of

        elsewhere = pc.invert(pc.is_in(self.ids, without))
        for id, messages in zip(self.ids.filter(elsewhere), self.messages.filter(elsewhere), strict=True):
            yield f"tested before: {id.as_py()[:12]}", text_of(json.loads(messages.as_py()), instruction)

    def prompts(self, instruction: str) -> "pa.Array":
        """`prompt_key` of each example."""
        import json

        import pyarrow as pa

        from pipelines.data.profile import prompt_key, prompt_of

        keys = [prompt_key(prompt_of(json.loads(each.as_py()), instruction)) for each in self.messages]
        return pa.array([key for key in keys if key], pa.binary(16))


def ever_tested(uri: str) -> Tested:
    """The examples on the test side of any version of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ("id", "group", "messages", "split")
    known = pa.table({name: pa.array([], pa.string()) for name in names})
    for commit in commits(uri):
        # Texts are read of those versions alone that tested somebody else than the newer ones.
        ids = read_version(uri, commit["version"], ("id", "split"))
        if pc.all(pc.is_in(ids.filter(pc.equal(ids["split"], "test"))["id"], known["id"])).as_py() is not False:
            continue
        parts = [
            batch.filter(
                pc.and_(
                    pc.equal(batch["split"], "test"), pc.invert(pc.is_in(batch["id"], known["id"].combine_chunks()))
                )
            )
            for batch in read_batches(uri, commit["version"], names)
        ]
        known = pa.concat_tables([known, pa.Table.from_batches(parts, known.schema)]).combine_chunks()
    return Tested(*(known[name].combine_chunks() for name in ("id", "group", "messages")))
