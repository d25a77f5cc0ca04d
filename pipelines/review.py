"""What people decide about suspect examples: keep or drop, on the record; the newest decision of an example counts."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import UserError
from pipelines.waive import LONGEST_NAME, LONGEST_REASON, plain
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.data.corpus import Corpus
    from pipelines.data.evidence import Evidence

Choice = Literal["keep", "drop"]
SHORTEST_PREFIX = 6
"""Digits of an id that may stand for it."""
_NEEDED = "A decision carries a name and a reason."


@dataclass(frozen=True)
class Decision:
    """A person's word about an example."""

    example: str
    """Id of the conversation: the decision holds wherever the same one comes back."""
    decision: str
    kinds: tuple[str, ...]
    """What it was suspected of."""
    by: str
    because: str
    created_at: datetime


def decide(
    workspace: Workspace,
    recipe_name: str,
    suspects: dict[str, Sequence[str]],
    decision: Choice,
    *,
    by: str,
    because: str,
) -> list[Decision]:
    """Record a decision about each of `suspects` (id -> what it was suspected of); the decisions.

    Raises UserError without a name or a reason.
    """
    from pipelines.records import ReviewRow

    by = plain("--by", by, LONGEST_NAME, _NEEDED)
    because = plain("--because", because, LONGEST_REASON, _NEEDED)
    rows = [
        ReviewRow(
            recipe_name=recipe_name,
            example_id=id,
            decision=decision,
            kinds={"kinds": sorted(set(kinds))},
            by=by,
            because=because,
        )
        for id, kinds in suspects.items()
    ]
    with workspace.session() as session:
        session.add_all(rows)
        session.flush()
        return [_decision(row) for row in rows]


def decisions(workspace: Workspace, recipe_name: str) -> dict[str, Decision]:
    """Id -> the newest decision about it."""
    from sqlalchemy import select

    from pipelines.records import ReviewRow

    query = select(ReviewRow).where(ReviewRow.recipe_name == recipe_name).order_by(ReviewRow.id)
    with workspace.session() as session:
        return {row.example_id: _decision(row) for row in session.scalars(query)}


def said(workspace: Workspace, recipe_name: str) -> dict[Choice, list[str]]:
    """Keep and drop -> ids of the examples about which people said so last, sorted."""
    found = decisions(workspace, recipe_name).values()
    return {
        choice: sorted(decision.example for decision in found if decision.decision == choice)
        for choice in ("keep", "drop")
    }


def dropped(workspace: Workspace, recipe_name: str) -> list[str]:
    """Ids of the examples that people decided to leave out, sorted."""
    return said(workspace, recipe_name)["drop"]


def find_examples(corpus: "Corpus", evidence: "Evidence", prefixes: Iterable[str]) -> dict[str, Sequence[str]]:
    """Full id -> what it is suspected of, for ids or their first digits.

    Raises UserError when one stands for no example or for several.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = corpus.column("id").combine_chunks()
    found: dict[str, Sequence[str]] = {}
    for prefix in prefixes:
        rows = pc.indices_nonzero(pc.starts_with(ids, prefix)).to_numpy() if len(prefix) >= SHORTEST_PREFIX else []
        different = set(ids.take(pa.array(rows, pa.uint64())).to_pylist())
        if len(different) != 1:
            said = "no example" if not different else f"{len(different):,} examples"
            raise UserError(
                f"{prefix!r} stands for {said}.",
                f"Give an id or at least {SHORTEST_PREFIX} digits of one; `sluice data review RECIPE list` shows them.",
            )
        suspected = evidence.suspects
        kinds = suspected["kind"].filter(pa.array(np.isin(suspected["row"].to_numpy(), rows)))
        found[different.pop()] = kinds.unique().to_pylist()
    return found


def suspects_of(
    corpus: "Corpus", evidence: "Evidence", decided: dict[str, Decision], limit: int, kinds: Collection[str] = ()
) -> tuple[list[dict[str, Any]], int]:
    """(the suspects in the order of the panel's queue, nobody's decision before somebody's; how many there are).

    Each as plain values: id, kind, score, reason, the place, a masked beginning, and the decision if there is one.
    """
    import json

    import numpy as np

    from pipelines.data.auditing.samples import masked
    from pipelines.data.display.queues import worst_first
    from pipelines.data.example import text_of

    table = evidence.suspects
    row, score = table["row"].to_numpy(), np.nan_to_num(table["score"].to_numpy().astype(float))
    ordered = worst_first(table, None)
    place = np.zeros(int(row.max(initial=-1)) + 1, np.int64)
    place[ordered] = np.arange(len(ordered))
    known = np.isin(row, corpus.rows_with_ids(list(decided)))
    shown = np.lexsort((-score, place[row], known))[:limit]
    listed = table.take(shown).to_pylist()
    rows = corpus.take(np.array([each["row"] for each in listed], np.int64), ["id", "file", "position", "messages"])
    return [
        {
            "id": row["id"],
            "kind": each["kind"],
            "score": round(float(each["score"]), 4),
            "reason": masked(each["reason"], 300, kinds),
            "file": row["file"],
            "row": row["position"],
            "text": masked(text_of(json.loads(row["messages"])), kinds=kinds),
            "decision": decided[row["id"]].decision if row["id"] in decided else None,
        }
        for each, row in zip(listed, rows.to_pylist(), strict=True)
    ], len(table)


def _decision(row: Any) -> Decision:
    return Decision(
        row.example_id, row.decision, tuple(row.kinds.get("kinds", ())), row.by, row.because, row.created_at
    )
