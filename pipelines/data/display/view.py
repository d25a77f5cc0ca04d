"""What the data pages read: a corpus with its evidence and sides, and how its texts are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.data.corpus import ROW_GROUP, Corpus
from pipelines.data.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHOICES = 200
"""Values of a column that a filter offers."""
NO_SIDE = "none"
"""Of rows that are on no side of the split."""


@dataclass(frozen=True)
class Sides:
    """The side of each row in one version of the split's table."""

    names: tuple[str, ...]
    codes: "NDArray[np.int8]"
    """Number of the side's name; -1: the row is on none."""

    def of(self, number: int) -> str | None:
        """The side of a row."""
        code = int(self.codes[number])
        return self.names[code] if code >= 0 else None


@dataclass(frozen=True)
class View:
    """What the pages read: a corpus with its evidence, and how it is shown."""

    corpus: Corpus
    evidence: Evidence
    masked: tuple[str, ...] = ()
    """Kinds of personal data and secrets that are masked."""
    sides: Sides | None = None

    @property
    def stamp(self) -> tuple[str, int, str, int]:
        """Changes when the folders are made anew."""
        marks = self.corpus.folder / "corpus.json", self.evidence.folder / "evidence.json"
        corpus, evidence = (mark.stat().st_mtime_ns for mark in marks)
        return str(self.corpus.folder), corpus, str(self.evidence.folder), evidence

    def codes(self, name: str) -> "tuple[NDArray[np.int32], list[Any]]":
        """A column as numbers of its values, and these (see `Corpus.codes`); kept for the next page."""
        return _codes_of(*self.stamp[:2], name)

    @property
    def cluster_rows(self) -> "NDArray[np.int32]":
        """For each row number the rows of the cluster of that number; 0 where it is none."""
        return _cluster_rows(*self.stamp[2:])


def shown(view: View, text: str) -> str:
    """A text as people may see it."""
    if not view.masked:
        return text
    from pipelines.data.privacy.private import mask_private

    return mask_private(text, view.masked)


def choices(view: View, name: str) -> list[tuple[str, int]]:
    """The commonest values of a column with their rows, at most CHOICES: what a filter offers."""
    import numpy as np

    if name not in view.corpus.columns:
        return []
    codes, values = view.codes(name)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    order = np.argsort(-counts, kind="stable")[:CHOICES]
    return [(str(values[place]), int(counts[place])) for place in order]


def kinds_of(view: View, table: Literal["suspects", "private"]) -> list[tuple[str, int]]:
    """The kinds in the evidence's `suspects` or `private` with their rows, the commonest first."""
    import pyarrow.compute as pc

    found = getattr(view.evidence, table)
    pairs = found.select(["row", "kind"]).group_by(["row", "kind"]).aggregate([])
    counted = [(str(item["values"]), int(item["counts"])) for item in pc.value_counts(pairs["kind"]).to_pylist()]
    return sorted(counted, key=lambda item: (-item[1], item[0]))


def rows_with_ids(corpus: Corpus, ids: Sequence[str]) -> dict[str, int]:
    """Id -> the first row that has it, of those that are there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, int] = {}
    wanted, start = pa.array(sorted(set(ids)), pa.string()), 0
    for batch in corpus.batches(["id"], 8 * ROW_GROUP) if ids else ():
        for place in pc.indices_nonzero(pc.is_in(batch["id"], value_set=wanted)).to_pylist():
            found.setdefault(batch["id"][place].as_py(), start + place)
        start += len(batch)
    return found


def sides_of(corpus: Corpus, uri: str, version: int) -> Sides:
    """The side of every row, by its id in that version of the table. Raises UserError when it is gone."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipelines.data.versioned.table import read_version

    table = read_version(uri, version, ("id", "split"))
    encoded = table["split"].combine_chunks().dictionary_encode()
    places = pc.index_in(corpus.column("id").combine_chunks(), value_set=table["id"].combine_chunks())
    codes = pc.take(encoded.indices, places.cast(pa.int64())).fill_null(-1)
    return Sides(tuple(encoded.dictionary.to_pylist()), codes.to_numpy(zero_copy_only=False).astype(np.int8))


@lru_cache(maxsize=16)
def _codes_of(folder: str, stamp: int, name: str) -> "tuple[NDArray[np.int32], list[Any]]":
    import numpy as np

    codes, values = Corpus(Path(folder)).codes(name)
    return codes.astype(np.int32), values


@lru_cache(maxsize=4)
def _cluster_rows(folder: str, stamp: int) -> "NDArray[np.int32]":
    import numpy as np

    cluster = Evidence(Path(folder)).cluster
    return np.bincount(cluster, minlength=len(cluster)).astype(np.int32)
