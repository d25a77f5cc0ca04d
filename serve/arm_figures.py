"""How each arm has answered lately: load, latency, errors, and what people said; from the table of interactions."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from pipelines.recipe_experiment import ArmName
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LATEST = 2000
"""Whole answers of an arm, the latest, that its times are taken of: a 95th percentile is known to a hair then."""


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
    """Median and 95th percentile over the latest whole answers; None where there are none."""
    total_ms: tuple[float, float] | None
    """The same of all of the answer."""
    tokens_per_second: float | None
    """Median of their rates after the first token; None where none was longer."""
    opinions: dict[str, int] = field(default_factory=dict)
    """Kind of feedback -> answers that it was given to."""
    edited: float | None = None
    """Mean share of a corrected answer's characters that was changed; None where that is known of none."""


def arm_figures(workspace: Workspace, recipe_name: str, since: datetime) -> list[ArmFigures]:
    """Of every arm that was asked since then, by name. Shadow answers count nowhere: nobody has seen them."""
    from sqlalchemy import case, func, select

    from pipelines.records import InteractionRow
    from serve.errors import CLIENT_GONE

    asked = InteractionRow
    failed, left = (func.sum(case((which, 1), else_=0)) for which in (asked.status >= 500, asked.status == CLIENT_GONE))
    counts = select(asked.arm, func.count(), failed, left).where(*_seen(recipe_name, since)).group_by(asked.arm)
    with workspace.session() as session:
        opinions, edited = _opinions(session, recipe_name, since)
        found = []
        for arm, requests, failures, gone in session.execute(counts.order_by(asked.arm)).all():
            first, total, rate = _times(session, recipe_name, since, arm)
            said = opinions.get(arm, {})
            found.append(ArmFigures(arm, requests, failures, gone, first, total, rate, said, edited.get(arm)))
        return found


def _seen(recipe_name: str, since: datetime) -> list[Any]:
    from pipelines.records import InteractionRow

    asked = InteractionRow
    # The arms by name, all that there are: the index is by arm and then by time.
    arms = asked.arm.in_(get_args(ArmName))
    return [asked.recipe_name == recipe_name, arms, asked.created_at >= since, asked.shadow_of.is_(None)]


def _times(
    session: "Session", recipe_name: str, since: datetime, arm: str
) -> tuple[tuple[float, float] | None, tuple[float, float] | None, float | None]:
    """(first token, whole answer, tokens per second), as `ArmFigures` has them."""
    from sqlalchemy import select

    from pipelines.records import InteractionRow

    asked = InteractionRow
    query = (
        select(asked.first_token_ms, asked.total_ms, asked.completion_tokens)
        .where(*_seen(recipe_name, since), asked.arm == arm, asked.status == 200, asked.first_token_ms.is_not(None))
        .order_by(asked.created_at.desc())
        .limit(LATEST)
    )
    rows = [(first_ms or 0.0, total_ms, tokens) for first_ms, total_ms, tokens in session.execute(query)]
    rates = [
        1000 * (tokens - 1) / (total_ms - first_ms)
        for first_ms, total_ms, tokens in rows
        if tokens > 1 and total_ms > first_ms
    ]
    middle = _percentiles(rates)
    first, total = ([row[place] for row in rows] for place in (0, 1))
    return _percentiles(first), _percentiles(total), middle[0] if middle else None


def _percentiles(values: list[float]) -> tuple[float, float] | None:
    """The median and the 95th."""
    import numpy as np

    if not values:
        return None
    middle, high = np.percentile(values, [50, 95])
    return float(middle), float(high)


def _opinions(
    session: "Session", recipe_name: str, since: datetime
) -> tuple[dict[str, dict[str, int]], dict[str, float | None]]:
    """(arm -> kind -> answers, arm -> mean edit) of the feedback to requests since then."""
    from sqlalchemy import func, select

    from pipelines.records import FeedbackRow, InteractionRow

    asked, told = InteractionRow, FeedbackRow
    # Who says the same again of an answer says it once; of several corrections the largest counts.
    of_each = (
        select(asked.arm, told.kind, func.max(told.edited).label("edited"))
        .join(asked, asked.request_id == told.request_id)
        .where(*_seen(recipe_name, since))
        .group_by(asked.arm, told.kind, told.request_id)
        .subquery()
    )
    query = select(of_each.c.arm, of_each.c.kind, func.count(), func.avg(of_each.c.edited)).group_by(
        of_each.c.arm, of_each.c.kind
    )
    opinions: dict[str, dict[str, int]] = defaultdict(dict)
    edited: dict[str, float | None] = {}
    for arm, kind, count, mean in session.execute(query):
        opinions[arm][kind] = count
        if kind == "correction":
            edited[arm] = mean
    return opinions, edited
