"""Suspects of one kind and of all: rows, scores, reasons for people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.recipe_data import Anomalies

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Population:
    """What rows are compared with."""

    corpus: Corpus
    settings: Anomalies
    representatives: "NDArray[np.int64]"
    """A row of each cluster, the first."""


@dataclass(frozen=True)
class Kind:
    """The suspects of one kind."""

    name: str
    threshold: Any
    rows: "NDArray[np.int64]"
    scores: "NDArray[Any]"
    """Of these rows."""
    reason: Callable[[int, int], str]
    """From a suspect's place among `rows` and its row."""
    quantiles: dict[str, float]
    """Of the scores of all rows."""


def above(name: str, score: "NDArray[Any]", threshold: float, reason: Callable[[float], str]) -> Kind:
    """Rows with a score above the threshold."""
    import numpy as np

    rows = np.flatnonzero(score > threshold)
    return Kind(name, threshold, rows, score[rows], lambda place, row: reason(float(score[row])), {})


def farthest(name: str, z: "NDArray[Any]", threshold: float | None, reason: Callable[[int, int], str]) -> Kind:
    """Rows at least `threshold` away from what is usual."""
    import numpy as np

    assert threshold is not None
    rows = np.flatnonzero(z >= threshold)
    shown = {f"p{100 * share:g}": round(float(np.quantile(z, share)), 2) for share in (0.5, 0.9, 0.99, 0.999)}
    return Kind(name, threshold, rows, z[rows], reason, shown)


def table_of(kinds: Sequence[Kind]) -> "pa.Table":
    """row, kind, score, reason of the suspects of all kinds, one kind after another."""
    import numpy as np
    import pyarrow as pa

    schema = pa.schema([("row", pa.int64()), ("kind", pa.string()), ("score", pa.float32()), ("reason", pa.string())])
    parts = [schema.empty_table()]
    for kind in kinds:
        reasons = [kind.reason(place, row) for place, row in enumerate(kind.rows.tolist())]
        names = pa.array([kind.name] * len(reasons), pa.string())
        columns = [kind.rows.astype(np.int64), names, kind.scores.astype(np.float32), pa.array(reasons, pa.string())]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)
