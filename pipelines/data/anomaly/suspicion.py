"""Which suspects still count, once people have said what they think of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

UNCOUNTED = ("mismatch", "label")
"""Kinds that do not count towards `data.anomalies`: of mismatches the recipe says how many are shown, and wrong
labels have a gate of their own."""


@dataclass(frozen=True)
class Suspicion:
    """The suspects of a corpus."""

    table: "pa.Table"
    """row, kind, score, reason; without the rows that people decided about."""
    by_kind: dict[str, int]
    """Kind -> its rows, the commonest first."""
    rows: int
    """Rows of the kinds that count, each once."""
    kept: int
    """Suspect rows that a person decided to keep."""
    dropped: int
    """Suspect rows that a person decided to leave out."""
    label_noise: dict[str, Any]
    """Figures of the search for wrong labels; `share` is of those that nobody decided about, `estimated_share` of all,
    `decided_rows` how many suspect ones people decided about."""


def suspicion(evidence: Evidence, kept: "NDArray[np.int64]", dropped: "NDArray[np.int64]") -> Suspicion:
    """The suspects, but for the rows that people decided to keep or to leave out."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = evidence.suspects
    rows = table["row"].to_numpy()
    decided = np.isin(rows, np.concatenate((kept, dropped)))
    waiting = table.filter(pa.array(~decided))
    by_kind = _rows_by_kind(waiting)
    counted = waiting.filter(pc.invert(pc.is_in(waiting["kind"], pa.array(UNCOUNTED))))
    return Suspicion(
        table=waiting,
        by_kind=dict(sorted(by_kind.items(), key=lambda item: (-item[1], item[0]))),
        rows=len(np.unique(counted["row"].to_numpy())),
        kept=len(np.intersect1d(rows, kept)),
        dropped=len(np.intersect1d(rows, dropped)),
        label_noise=_label_noise(
            evidence.note.label_noise, _rows_by_kind(table).get("label", 0), by_kind.get("label", 0)
        ),
    )


def _rows_by_kind(table: "pa.Table") -> dict[str, int]:
    import numpy as np
    import pyarrow.compute as pc

    return {
        kind: len(np.unique(table.filter(pc.equal(table["kind"], kind))["row"].to_numpy()))
        for kind in table["kind"].unique().to_pylist()
    }


def _label_noise(found: dict[str, Any], suspects: int, waiting: int) -> dict[str, Any]:
    """The figures with the share that nobody decided about.

    The estimate is of more rows than those that can be named: what people say of the named ones counts for as much of
    it as they are of them, lest a queue that was worked off to its end leave the gate closed.
    """
    share = found.get("share")
    if share is None:
        return found
    still = share if waiting == suspects else share * waiting / suspects
    return found | {"share": still, "estimated_share": share, "decided_rows": suspects - waiting}
