"""Experiments as commands and pages show them."""

from datetime import timedelta
from typing import Any

from pipelines.records import ExperimentEventRow, ExperimentRow, now
from pipelines.workspace import Workspace
from serve.experimentation import lifecycle
from serve.experimentation.evidence import counted
from serve.experimentation.look import evidence_of, look

WATCHED_S = 60
"""Seconds since the last look after which nobody watches any more."""
TRAFFIC_DAYS = 14


def summary(row: ExperimentRow) -> dict[str, Any]:
    """What there is to say of an experiment without a look at it."""
    section = lifecycle.section_of(row)
    return {
        "experiment": row.id,
        "recipe": row.recipe_name,
        "state": row.state,
        "outcome": row.outcome,
        "primary": section.primary.metric,
        "control": section.control,
        "treated": section.treated,
        "version": row.model_version,
        "planned": row.planned,
        "settle_hours": section.settle_hours,
        "before_days": section.before_days,
        "coverage": row.coverage,
        "started": row.created_at,
        "ended": row.ended_at,
        "by": row.by,
        "watched": row.looked_at is not None and now() - row.looked_at < timedelta(seconds=WATCHED_S),
    }


def standing(workspace: Workspace, recipe_name: str, number: int | None = None) -> dict[str, Any]:
    """{"experiment": its summary, "look": what there is to see now, or was at its end}.

    Raises UserError where there was none.
    """
    row = lifecycle.latest(workspace, recipe_name, number)
    # What it ended on stands, whatever came late.
    ends = [event.content for event in lifecycle.events_of(workspace, row.id) if event.action in ("end", "promote")]
    decided = ends[-1]["evidence"] if ends else None
    return {"experiment": summary(row), "look": decided or evidence_of(look(workspace, row))}


def looks(workspace: Workspace, experiment_id: int) -> list[dict[str, Any]]:
    """The looks that were kept, oldest first: {"at", "units"} and what `standing` calls "look"."""
    events = lifecycle.events_of(workspace, experiment_id)
    return [
        {"at": event.created_at, "units": sum(counted(event.content).values())} | event.content
        for event in events
        if event.action == "look"
    ]


def sentence_of(event: ExperimentEventRow) -> str:
    """An event for people."""
    content = event.content
    if event.action == "start":
        return f"{content['planned']:,} units planned, {content['coverage']:.0%} covered"
    if event.action == "cover":
        return f"{content['coverage']:.0%} covered" + (f": {content['because']}" if content["because"] else "")
    if event.action == "look":
        return f"{sum(counted(content).values()):,} units, {content['outcome']}: {content['sentence']}"
    if event.action in ("end", "promote"):
        serves = f"; {content['champion']} serves everyone" if content["champion"] else ""
        return f"{content['outcome']}{serves}: {content['because']}"
    return str(content.get("because", ""))


def new_units_per_day(workspace: Workspace, recipe_name: str) -> float:
    """Units a day that asked for the first time in the last fortnight; 0 where there were none."""
    from sqlalchemy import func, select

    from pipelines.records import InteractionRow

    asked = InteractionRow
    # Those of arms that clients named are no users of an experiment.
    first = (
        select(func.min(asked.created_at).label("at"))
        .where(asked.recipe_name == recipe_name, asked.shadow_of.is_(None))
        .group_by(asked.unit)
        .subquery()
    )
    since = now() - timedelta(days=TRAFFIC_DAYS)
    with workspace.session() as session:
        oldest = session.scalar(select(func.min(first.c.at)))
        count = session.scalar(select(func.count()).select_from(first).where(first.c.at >= since)) or 0
    if oldest is None or not count:
        return 0.0
    days = (now() - max(oldest, since)).total_seconds() / 86_400
    # Of a service that began this morning a day is not known.
    return float(count / max(days, 1.0))
