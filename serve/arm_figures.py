"""How each arm has answered lately: load, latency, errors, and what people said; from the table of interactions."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LOOKED_AT = 20_000
"""The latest requests of a recipe that percentiles are taken of; more would not move them."""


@dataclass(frozen=True)
class ArmFigures:
    """Of one arm, since a moment."""

    arm: str
    requests: int
    failed: int
    """Answered with 500 or more, or broken off by us."""
    left: int
    """Whose client went away before the end."""
    first_token_ms: tuple[float, float] | None
    """Median and 95th percentile; None where nothing was generated."""
    total_ms: tuple[float, float] | None
    """Of whole answers."""
    tokens_per_second: float | None
    """Median of the whole answers' own rates after the first token."""
    said: dict[str, int] = field(default_factory=dict)
    """Kind of feedback -> answers it was said of."""
    edited: float | None = None
    """Mean share of an answer's characters that its correction changed; None where no answer was corrected."""


def arm_figures(workspace: Workspace, recipe_name: str, since: datetime) -> list[ArmFigures]:
    """Of every arm that was asked since then, by name. Shadow answers count nowhere: nobody has seen them."""
    from sqlalchemy import select

    from pipelines.records import InteractionRow

    asked = InteractionRow
    figures = asked.arm, asked.status, asked.first_token_ms, asked.total_ms, asked.completion_tokens
    latest = (
        select(*figures)
        .where(asked.recipe_name == recipe_name, asked.created_at >= since, asked.shadow_of.is_(None))
        .order_by(asked.created_at.desc())
        .limit(LOOKED_AT)
    )
    arms: dict[str, list[Any]] = defaultdict(list)
    with workspace.session() as session:
        for row in session.execute(latest):
            arms[row.arm].append(row)
        said, edited = _said(session, recipe_name, since)
    return [_figures(arm, rows, said.get(arm, {}), edited.get(arm)) for arm, rows in sorted(arms.items())]


def _figures(arm: str, rows: list[Any], said: dict[str, int], edited: float | None) -> ArmFigures:
    from serve.errors import CLIENT_GONE

    whole = [row for row in rows if row.status == 200]
    rates = [
        1000 * (row.completion_tokens - 1) / (row.total_ms - row.first_token_ms)
        for row in whole
        if row.first_token_ms is not None and row.completion_tokens > 1 and row.total_ms > row.first_token_ms
    ]
    return ArmFigures(
        arm=arm,
        requests=len(rows),
        failed=sum(row.status >= 500 for row in rows),
        left=sum(row.status == CLIENT_GONE for row in rows),
        first_token_ms=_percentiles([row.first_token_ms for row in rows if row.first_token_ms is not None]),
        total_ms=_percentiles([row.total_ms for row in whole]),
        tokens_per_second=_percentiles(rates)[0] if rates else None,
        said=said,
        edited=edited,
    )


def _percentiles(values: list[float]) -> tuple[float, float] | None:
    import numpy as np

    if not values:
        return None
    middle, high = np.percentile(values, [50, 95])
    return float(middle), float(high)


def _said(
    session: "Session", recipe_name: str, since: datetime
) -> tuple[dict[str, dict[str, int]], dict[str, float | None]]:
    """(arm -> kind -> answers, arm -> mean edit) of the feedback to requests since then."""
    from sqlalchemy import func, select

    from pipelines.records import FeedbackRow, InteractionRow

    asked, spoken = InteractionRow, FeedbackRow
    query = (
        select(asked.arm, spoken.kind, func.count(spoken.request_id.distinct()), func.avg(spoken.edited))
        .join(asked, asked.request_id == spoken.request_id)
        .where(asked.recipe_name == recipe_name, asked.created_at >= since, asked.shadow_of.is_(None))
        .group_by(asked.arm, spoken.kind)
    )
    said: dict[str, dict[str, int]] = defaultdict(dict)
    edited: dict[str, float | None] = {}
    for arm, kind, count, mean in session.execute(query):
        said[arm][kind] = count
        if kind == "correction":
            edited[arm] = mean
    return said, edited
