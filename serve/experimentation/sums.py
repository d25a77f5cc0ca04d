"""What the database sums up of an experiment: units per arm, and each metric's sums over the units.

A unit that nothing is known of counts with 0: leaving it out would compare only those of whom there was something to
say. Nothing counts that was before the unit met its arm, or after the experiment had ended.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.recipe_experiment import Measure
from pipelines.records import (
    EventRow,
    ExperimentExposureRow,
    ExperimentRow,
    FeedbackRow,
    InteractionRow,
)
from serve.experimentation.adjustment import Paired
from serve.experimentation.arms import Arm

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select, Subquery
    from sqlalchemy.orm import InstrumentedAttribute, Session


@dataclass(frozen=True)
class Settled:
    """Units that count, of few planned ones."""

    units: list[tuple[str, bool]]
    """Arm and success of each, in the order in which they came."""
    late: int
    """Values that would have counted, had they been known in time."""


def exposures(session: "Session", row: ExperimentRow) -> dict[str, int]:
    """Arm -> units that met it."""
    from sqlalchemy import func, select

    met = ExperimentExposureRow
    query = select(met.arm, func.count()).where(*_met(row)).group_by(met.arm)
    return {arm: count for arm, count in session.execute(query)}


def figures(session: "Session", row: ExperimentRow, measure: Measure) -> dict[str, Arm]:
    """Arm -> sums of one metric over its units."""
    from sqlalchemy import func, select

    of_units = _of_units(row, measure)
    one = of_units.c.value
    query = select(of_units.c.arm, func.count(), func.sum(one), func.sum(one * one)).group_by(of_units.c.arm)
    return {arm: Arm(n, float(total), float(squares)) for arm, n, total, squares in session.execute(query)}


def beside_before(session: "Session", row: ExperimentRow, measure: Measure, days: float) -> dict[str, Paired]:
    """Arm -> sums of one metric over its units, and of the same metric in the `days` before the start."""
    from sqlalchemy import func, select

    figures, covariates = _of_units(row, measure), _of_units(row, measure, days_before=days)
    figure, covariate = figures.c.value, covariates.c.value
    products = (figure, figure * figure, covariate, covariate * covariate, figure * covariate)
    query = (
        select(figures.c.arm, func.count(), *(func.sum(each) for each in products))
        .join(covariates, covariates.c.unit == figures.c.unit)
        .group_by(figures.c.arm)
    )
    found = {}
    for arm, n, *sums in session.execute(query):
        total, squares, before, before_squares, crossed = map(float, sums)
        found[arm] = Paired(Arm(n, total, squares), Arm(n, before, before_squares), crossed)
    return found


def settled(
    session: "Session", row: ExperimentRow, measure: Measure, *, hours: float, at: "datetime", most: int
) -> Settled:
    """Of the units whose hours since they met their arm are over, whether there was a value above 0 within them.

    `most` at most, in the order in which they came: who comes after those counts never. What was not known within
    those hours never counts either, so that nothing changes of a unit once it counts.
    """
    from sqlalchemy import select

    met, within = ExperimentExposureRow, timedelta(hours=hours)
    until = at if row.ended_at is None else min(at, row.ended_at)
    query = select(met.unit, met.arm, met.created_at).where(*_met(row)).order_by(met.created_at, met.id).limit(most)
    units = [each for each in session.execute(query).all() if each.created_at + within <= until]
    by_unit = {each.unit: each for each in units}
    succeeded, late = set(), 0
    for unit, moment, known_at in session.execute(_moments(row, measure, list(by_unit))):
        met_at = by_unit[unit].created_at
        if met_at <= moment <= met_at + within:
            in_time = known_at <= met_at + within
            late += not in_time
            succeeded |= {unit} if in_time else set()
    return Settled([(each.arm, each.unit in succeeded) for each in units], late)


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


def _of_units(row: ExperimentRow, measure: Measure, days_before: float | None = None) -> "Subquery":
    """arm, unit and value of every unit: since it met its arm, or in the days before the start."""
    from sqlalchemy import and_, func, select

    met, values = ExperimentExposureRow, _values(row, measure, days_before).subquery()
    value = func.coalesce(_AGGREGATES[measure.per_unit](values.c.value), 0.0).label("value")
    since = [values.c.at >= met.created_at] if days_before is None else []
    return (
        select(met.arm, met.unit, value)
        .outerjoin(values, and_(values.c.unit == met.unit, *since))
        .where(*_met(row))
        .group_by(met.arm, met.unit)
        .subquery()
    )


def _values(row: ExperimentRow, measure: Measure, days_before: float | None = None) -> "Select[str, float, datetime]":
    """unit, value and moment of everything that the metric is made of: in the experiment, or in the days before it."""
    from sqlalchemy import select

    since, until = None, row.ended_at
    if days_before is not None:
        since, until = row.created_at - timedelta(days=days_before), row.created_at
    if measure.source == "event":
        of_events = select(EventRow.unit, EventRow.value.label("value"), EventRow.happened_at.label("at")).where(
            EventRow.recipe_name == row.recipe_name, EventRow.name == measure.name
        )
        return of_events.where(*_between(EventRow.happened_at, since, until))
    asked = InteractionRow
    value = _share(measure, until)
    of_requests = select(asked.unit, value.label("value"), asked.created_at.label("at")).where(
        asked.shadow_of.is_(None), *_between(asked.created_at, since, until)
    )
    if days_before is None:
        return of_requests.where(asked.experiment_id == row.id)
    return of_requests.where(asked.recipe_name == row.recipe_name)


def _moments(row: ExperimentRow, measure: Measure, units: list[str]) -> "Select[str, datetime, datetime]":
    """unit, the moment of a value above 0, and when it was known; of these units."""
    from sqlalchemy import select

    asked, said = InteractionRow, FeedbackRow
    if measure.source == "feedback":
        kind = "correction" if measure.name == "edited" else measure.name
        changed = [_extent() > 0] if measure.name == "edited" else []
        return (
            select(asked.unit, asked.created_at, said.created_at)
            .join(said, said.request_id == asked.request_id)
            .where(asked.experiment_id == row.id, asked.shadow_of.is_(None), asked.unit.in_(units))
            .where(said.kind == kind, *changed)
        )
    if measure.source == "event":
        event = EventRow
        return select(event.unit, event.happened_at, event.created_at).where(
            event.recipe_name == row.recipe_name, event.name == measure.name, event.value > 0, event.unit.in_(units)
        )
    values = _values(row, measure).subquery()
    return select(values.c.unit, values.c.at, values.c.at).where(values.c.value > 0, values.c.unit.in_(units))


def _between(
    moment: "InstrumentedAttribute[datetime]", since: "datetime | None", until: "datetime | None"
) -> "list[ColumnElement[bool]]":
    return ([moment >= since] if since is not None else []) + ([moment <= until] if until is not None else [])


def _share(measure: Measure, until: "datetime | None") -> "ColumnElement[float]":
    """1 for a request that the metric counts, else 0; or how much of its answer was edited."""
    from sqlalchemy import case, func, select

    asked, said = InteractionRow, FeedbackRow
    if measure.source == "feedback":
        of_it = [said.request_id == asked.request_id] + ([said.created_at <= until] if until is not None else [])
        if measure.name == "edited":
            # Of several corrections the largest.
            most = select(func.max(_extent())).where(*of_it, said.kind == "correction").scalar_subquery()
            return func.coalesce(most, 0.0)
        return case((select(said.id).where(*of_it, said.kind == measure.name).exists(), 1.0), else_=0.0)
    counted = {
        "failed": asked.status >= 500,
        "slow": asked.total_ms > (measure.over_ms or 0),
        "declined": asked.declined.is_(True),
        "cut": asked.finish_reason == "length",
    }
    return case((counted[measure.name], 1.0), else_=0.0)


def _extent() -> "ColumnElement[float]":
    """How much a correction changed; one whose answer is not kept is never the best there is: all."""
    from sqlalchemy import func

    return func.coalesce(FeedbackRow.edited, 1.0)


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
