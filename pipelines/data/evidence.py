"""What was found about a corpus's rows, in a folder: clusters, edges, suspects, private data, leaks."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.fingerprint import short

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.data.similarity.semantic import Vectors

EVIDENCE_VERSION = 3
"""Enters the key: raise it when the same corpus gives other evidence, or the files other columns."""

TABLES = ("clusters", "edges", "suspects", "private")
"""The files that are always there; `leaks-SPLIT.parquet` comes with a split, `report-KEY.html` with an audit, and
`vectors` where texts were compared by meaning."""
_OF_OTHERS = ("leaks-*.parquet", "report-*.html")
"""What stands on reports that are kept, so it outlives evidence that is found anew."""
_MEAN = b"sluice.mean"


@dataclass(frozen=True)
class EvidenceNote:
    """What evidence is of, and what is said of it as a whole."""

    corpus: str
    """Folder of the corpus whose rows the numbers mean."""
    anomalies: dict[str, Any] = field(default_factory=dict)
    """Figures of the search for suspects, plain values."""
    label_noise: dict[str, Any] = field(default_factory=dict)
    """Figures of the search for wrong labels, plain values; empty where there are no labels."""


class Evidence:
    """Findings about rows, read from a folder that `write_evidence` left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def note(self) -> EvidenceNote:
        """What it is of."""
        return EvidenceNote(**json.loads((self.folder / "evidence.json").read_text("utf-8")))

    @cached_property
    def text(self) -> "NDArray[np.int64]":
        """For each row the number of its text: the smallest row with the same normalised text."""
        return self._numbers("clusters", "text")

    @cached_property
    def cluster(self) -> "NDArray[np.int64]":
        """For each row the number of its cluster: its smallest row."""
        return self._numbers("clusters", "cluster")

    @cached_property
    def edges(self) -> "pa.Table":
        """left, right (rows that stand for their texts), similarity, kind (near or semantic)."""
        return self._table("edges")

    @cached_property
    def suspects(self) -> "pa.Table":
        """row, kind, score, reason: one row for each suspicion, several a row possible."""
        return self._table("suspects")

    @cached_property
    def private(self) -> "pa.Table":
        """row, kind, masked: one row for each piece of personal data or secret, its sample masked."""
        return self._table("private")

    @cached_property
    def vectors(self) -> "Vectors | None":
        """Of each row that stands for its text, ascending, what it means; None where nobody asked for it."""
        import numpy as np
        import pyarrow as pa

        from pipelines.data.similarity.semantic import Vectors

        file = self.folder / "vectors.arrow"
        if not file.is_file():
            return None
        # Mapped, not read: there may be more of them than memory.
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        mean = np.frombuffer(table.schema.metadata[_MEAN], np.float32)
        units = table["unit"].combine_chunks().flatten().to_numpy()
        return Vectors(units.reshape(-1, len(mean)), mean)

    def leaks(self, split: str) -> "pa.Table | None":
        """kind, left, right (ids), similarity, of the split with this fingerprint; None where it left none."""
        name = f"leaks-{short(split)}"
        return self._table(name) if (self.folder / f"{name}.parquet").is_file() else None

    def page(self, report: str) -> Path:
        """Where the audit with this report's key is as one HTML file, or would be: several may be of the same rows."""
        return self.folder / f"report-{short(report)}.html"

    def write_leaks(self, table: "pa.Table", split: str) -> None:
        """Keep the leaks of the split with this fingerprint: several recipes may split the same rows."""
        import pyarrow.parquet as pq

        partial = self.folder / f"leaks-{short(split)}.partial"
        pq.write_table(table, partial, compression="zstd")
        partial.rename(partial.with_suffix(".parquet"))

    def _table(self, name: str) -> "pa.Table":
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / f"{name}.parquet")

    def _numbers(self, name: str, column: str) -> "NDArray[np.int64]":
        import pyarrow.parquet as pq

        found: NDArray[np.int64] = pq.read_table(self.folder / f"{name}.parquet", columns=[column])[column].to_numpy()
        return found


def vectors_table(vectors: "Vectors") -> "pa.Table":
    """unit: a list of numbers for each vector, without a copy of them; the mean stands in the schema."""
    import pyarrow as pa

    size = len(vectors.mean)
    units = pa.FixedSizeListArray.from_arrays(pa.array(vectors.units.reshape(-1)), size)
    schema = pa.schema([("unit", units.type)], {_MEAN: vectors.mean.tobytes()})
    return pa.Table.from_arrays([units], schema=schema)


def write_evidence(folder: Path, tables: "dict[str, pa.Table]", note: EvidenceNote) -> Evidence:
    """Store the TABLES, and `vectors` where they are given, complete or not at all; the evidence."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert set(tables) - {"vectors"} == set(TABLES), f"evidence is {TABLES}, not {tuple(tables)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        for name in TABLES:
            pq.write_table(tables[name], partial / f"{name}.parquet", compression="zstd")
        if (vectors := tables.get("vectors")) is not None:
            with pa.OSFile(str(partial / "vectors.arrow"), "wb") as sink, pa.ipc.new_file(sink, vectors.schema) as file:
                file.write_table(vectors)
        (partial / "evidence.json").write_text(json.dumps(asdict(note)), "utf-8")
        for pattern in _OF_OTHERS:
            for kept in folder.glob(pattern):
                shutil.copy2(kept, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Evidence(folder)
