"""What the database sums up of an experiment: units per arm, and each metric's sums over the units.

A unit that nothing is known of counts with 0: leaving it out would compare only those of whom there was something to
say. Nothing counts that was before the unit met its arm, or after the experiment had ended.
"""

from typing import TYPE_CHECKING

from pipelines.recipe_experiment import Measure
from pipelines.records import (
    EventRow,
    ExperimentExposureRow,
    ExperimentRow,
    FeedbackRow,
    InteractionRow,
)
from serve.experimentation.arms import Arm

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session


def exposures(session: "Session", row: ExperimentRow) -> dict[str, int]:
    """Arm -> units that met it."""
    from sqlalchemy import func, select

    met = ExperimentExposureRow
    query = select(met.arm, func.count()).where(*_met(row)).group_by(met.arm)
    return {arm: count for arm, count in session.execute(query)}


def figures(session: "Session", row: ExperimentRow, measure: Measure) -> dict[str, Arm]:
    """Arm -> sums of one metric over its units."""
    from sqlalchemy import func, select

    met, values = ExperimentExposureRow, _values(row, measure).subquery()
    value = func.coalesce(_AGGREGATES[measure.per_unit](values.c.value), 0.0).label("value")
    of_units = (
        select(met.arm, value)
        .outerjoin(values, (values.c.unit == met.unit) & (values.c.at >= met.created_at))
        .where(*_met(row))
        .group_by(met.arm, met.unit)
        .subquery()
    )
    one = of_units.c.value
    query = select(of_units.c.arm, func.count(), func.sum(one), func.sum(one * one)).group_by(of_units.c.arm)
    return {arm: Arm(n, float(total), float(squares)) for arm, n, total, squares in session.execute(query)}


def set_aside(session: "Session", row: ExperimentRow, measure: Measure) -> int:
    """Values of a metric of events that do not count: of units that met no arm, or from before they did."""
    from sqlalchemy import func, select

    if measure.source != "event":
        return 0
    met, values = ExperimentExposureRow, _values(row, measure).subquery()
    counted = select(met.id).where(*_met(row), met.unit == values.c.unit, met.created_at <= values.c.at)
    query = select(func.count()).select_from(values).where(~counted.exists())
    return int(session.scalar(query.where(values.c.at >= row.created_at)) or 0)


def _met(row: ExperimentRow) -> "list[ColumnElement[bool]]":
    """Which exposures count: a gateway may let a unit in for two seconds more after the end."""
    met = ExperimentExposureRow
    return [met.experiment_id == row.id] + ([met.created_at <= row.ended_at] if row.ended_at is not None else [])


def _values(row: ExperimentRow, measure: Measure) -> "Select[str, float, datetime]":
    """unit, value and moment of everything that the metric is made of."""
    from sqlalchemy import select

    until = row.ended_at
    if measure.source == "event":
        of_events = select(EventRow.unit, EventRow.value.label("value"), EventRow.happened_at.label("at")).where(
            EventRow.recipe_name == row.recipe_name, EventRow.name == measure.name
        )
        return of_events if until is None else of_events.where(EventRow.happened_at <= until)
    asked = InteractionRow
    value = _share(measure, until)
    query = select(asked.unit, value.label("value"), asked.created_at.label("at"))
    if until is not None:
        query = query.where(asked.created_at <= until)
    return query.where(asked.experiment_id == row.id, asked.shadow_of.is_(None))


def _share(measure: Measure, until: "datetime | None") -> "ColumnElement[float]":
    """1 for a request that the metric counts, else 0; or how much of its answer was edited."""
    from sqlalchemy import case, func, select

    asked, said = InteractionRow, FeedbackRow
    if measure.source == "feedback":
        of_it = [said.request_id == asked.request_id] + ([said.created_at <= until] if until is not None else [])
        if measure.name == "edited":
            # Of several corrections the largest. One whose answer is not kept is never the best there is: all changed.
            extent = func.coalesce(said.edited, 1.0)
            most = select(func.max(extent)).where(*of_it, said.kind == "correction").scalar_subquery()
            return func.coalesce(most, 0.0)
        return case((select(said.id).where(*of_it, said.kind == measure.name).exists(), 1.0), else_=0.0)
    counted = {
        "failed": asked.status >= 500,
        "slow": asked.total_ms > (measure.over_ms or 0),
        "declined": asked.declined.is_(True),
        "cut": asked.finish_reason == "length",
    }
    return case((counted[measure.name], 1.0), else_=0.0)


def _any(value: "ColumnElement[float]") -> "ColumnElement[float]":
    from sqlalchemy import case, func

    return func.max(case((value > 0, 1.0), else_=0.0))


def _sum(value: "ColumnElement[float]") -> "ColumnElement[float]":
    from sqlalchemy import func

    return func.sum(value)


def _mean(value: "ColumnElement[float]") -> "ColumnElement[float]":
    from sqlalchemy import func

    return func.avg(value)


_AGGREGATES = {"any": _any, "sum": _sum, "mean": _mean}
