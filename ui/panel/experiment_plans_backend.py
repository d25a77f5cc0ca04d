"""What an experiment will take, before it starts, and its start."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cluster.errors import UserError
from ui.panel import backend, experiments_backend
from ui.panel.last_known import Known, Problem, problem_of

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.recipe_experiment import Experiment
    from serve.experimentation.design import Size


@dataclass(frozen=True)
class Plan:
    """What an experiment will take, before it starts."""

    recipe: "Recipe"
    section: "Experiment"
    size: "Size"
    units_per_day: float
    """New users a day that the service has seen of late; 0 where there were none."""
    days: int | None
    """Until the planned units are in; None where no traffic is known."""


def plan(recipe: "Recipe") -> Known[Plan | None]:
    """What the recipe's experiment will take; the value is None when the recipe has none, or it cannot decide.

    Where it would last too long, the value and the problem that says so.
    """
    from serve.experimentation.design import check_can_end, days_for
    from serve.experimentation.reading import new_units_per_day

    section = recipe.experiment
    if section is None:
        return Known(None, None)
    try:
        size = _size(json.dumps(section.model_dump(mode="json"), sort_keys=True))
        check_can_end(section, size.planned)
    except UserError as error:
        return Known(None, None, Problem(error.message, error.remedy))
    seen = backend.from_database(
        ("new units", recipe.name), lambda: new_units_per_day(backend.workspace(), recipe.name)
    )
    per_day, days, problem = seen.value or 0.0, None, seen.problem
    try:
        days = days_for(section, size, per_day) if per_day else None
    except UserError as error:
        problem = Problem(error.message, error.remedy)
    return Known(Plan(recipe, section, size, per_day, days), seen.read_at, problem)


@lru_cache(maxsize=16)
def _size(section: str) -> "Size":
    """Sought by trying: half a second, which a page that is drawn anew at each click would pay each time."""
    from pipelines.recipe_experiment import Experiment
    from serve.experimentation.design import size_of

    return size_of(Experiment.model_validate_json(section))


def start(recipe: "Recipe", by: str) -> Known[int]:
    """The number of the experiment that runs from now on."""
    from serve.experimentation import lifecycle

    if not by.strip():
        return experiments_backend.refused("Nothing was started: it needs a name.", experiments_backend.NAME_REMEDY)
    try:
        return Known(lifecycle.start(backend.workspace(), recipe, by).id, None)
    except Exception as error:
        # Whatever went wrong is a sentence on the page.
        return Known(None, None, problem_of(error, "The database", backend.DATABASE_REMEDY))
