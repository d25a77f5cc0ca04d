"""Which suspects still count, once people have said what they think of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.display.view import all_rows_with_ids
from pipelines.data.evidence import Evidence

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.workspace import Workspace

UNCOUNTED = ("mismatch", "label")
"""Kinds that do not count towards `data.anomalies`: of mismatches the recipe says how many are shown, and wrong
labels have a gate of their own."""


@dataclass(frozen=True)
class Suspicion:
    """The suspects of a corpus."""

    table: "pa.Table"
    """row, kind, score, reason; without the rows that a person decided to keep."""
    by_kind: dict[str, int]
    """Kind -> its rows, the commonest first."""
    rows: int
    """Rows of the kinds that count, each once."""
    kept: int
    """Suspect rows that a person decided to keep."""


def suspicion(corpus: Corpus, evidence: Evidence, keep: Iterable[str]) -> Suspicion:
    """The suspects, but for the examples whose ids are to `keep`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = evidence.suspects
    rows = table["row"].to_numpy()
    decided = all_rows_with_ids(corpus, list(keep))
    open_still = ~np.isin(rows, decided)
    table = table.filter(pa.array(open_still))
    by_kind = {
        kind: len(np.unique(table.filter(pc.equal(table["kind"], kind))["row"].to_numpy()))
        for kind in table["kind"].unique().to_pylist()
    }
    counted = table.filter(pc.invert(pc.is_in(table["kind"], pa.array(UNCOUNTED))))
    return Suspicion(
        table=table,
        by_kind=dict(sorted(by_kind.items(), key=lambda item: (-item[1], item[0]))),
        rows=len(np.unique(counted["row"].to_numpy())),
        kept=len(np.unique(rows[~open_still])),
    )


def kept_ids(workspace: "Workspace", recipe_name: str) -> list[str]:
    """Ids of the examples whose newest review says keep, sorted."""
    from sqlalchemy import func, select

    from pipelines.records import ReviewRow

    newest = select(func.max(ReviewRow.id)).where(ReviewRow.recipe_name == recipe_name).group_by(ReviewRow.example_id)
    with workspace.session() as session:
        kept = session.scalars(
            select(ReviewRow.example_id).where(ReviewRow.id.in_(newest), ReviewRow.decision == "keep")
        )
        return sorted(kept)
