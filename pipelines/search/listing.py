"""All sweeps of a workspace, each as a line: how many trials, and whether it goes on."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipelines.records import SweepEventRow
from pipelines.search.history import History, sweeps
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class SweepLine:
    """A sweep in the list."""

    sweep: str
    recipe_name: str
    opened_at: datetime
    last_at: datetime
    trials: int
    ended: int
    """Trials that have ended."""
    closed: bool


def lines(workspace: Workspace, recipe_name: str | None = None) -> list[SweepLine]:
    """The sweeps of this recipe, or all, the one with the newest event first."""
    entries = sweeps(workspace, recipe_name)
    counted = select(
        SweepEventRow.sweep, SweepEventRow.kind, func.count(), func.max(SweepEventRow.id)
    ).where(SweepEventRow.kind.in_(("opened", "closed", "proposed", "ended")))  # fmt: skip
    if recipe_name:
        counted = counted.where(SweepEventRow.recipe_name == recipe_name)
    with Session(workspace.database) as session:
        rows = session.execute(counted.group_by(SweepEventRow.sweep, SweepEventRow.kind)).all()
    found = {(sweep, kind): (count, last) for sweep, kind, count, last in rows}
    none = (0, 0)
    return [
        SweepLine(
            entry.sweep,
            entry.recipe_name,
            entry.opened_at,
            entry.last_at,
            found.get((entry.sweep, "proposed"), none)[0],
            found.get((entry.sweep, "ended"), none)[0],
            found.get((entry.sweep, "closed"), none)[1] > found.get((entry.sweep, "opened"), none)[1],
        )
        for entry in entries
    ]


def find(workspace: Workspace, sweep: str) -> tuple[History, str] | None:
    """The history of the sweep of that name, and its recipe's name; None when there is none."""
    query = select(SweepEventRow.recipe_name).where(SweepEventRow.sweep == sweep).limit(1)
    with Session(workspace.database) as session:
        recipe_name = session.scalar(query)
    return None if recipe_name is None else (History(workspace, sweep, recipe_name), recipe_name)
