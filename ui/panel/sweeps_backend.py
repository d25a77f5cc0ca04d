"""What the panel reads of sweeps, and what people ask of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from ui.panel import backend
from ui.panel.last_known import Known, Problem, problem_of

if TYPE_CHECKING:
    from pipelines.recipe import Recipe, Train
    from pipelines.search.comparison import Comparison
    from pipelines.search.estimate import Estimate
    from pipelines.search.history import Action, Event, Standing, Trial
    from pipelines.search.importance import Importance
    from pipelines.search.listing import SweepLine
    from pipelines.search.reading import Best, Gain, Row, Span, Spent
    from pipelines.search.requests import Request

WAIT_S = 4.0
"""For the driver's answer, before the page goes on and shows it when it comes."""
IMPORTANCE_S = 60.0
"""For what mattered: the libraries that reckon it take seconds to load."""
IMPORTANCE_REMEDY = "The rest of the page does without it."
NAME_REMEDY = "The history keeps who asked: write your name above the buttons."


@dataclass(frozen=True)
class SweepView:
    """A sweep as the page shows it."""

    sweep: str
    recipe_name: str
    standing: "Standing"
    last_at: datetime
    """Of its newest event."""
    opened_at: datetime
    rows: "list[Row]"
    values: dict[str, dict[str, Any]]
    """Trial -> key of the space -> value; None where it has none, or none on record."""
    states: dict[str, int]
    spent: "Spent"
    leader: "Trial | None"
    gain: "Gain | None"
    interval: dict[str, Any] | None
    """The winner against the recipe's own values with its interval, as the report has it; None before."""
    curves: dict[str, list[tuple[int, float, float]]]
    best: "list[Best]"
    compared: "Comparison"
    spans: "list[Span]"
    requests: "list[Request]"
    """The newest first."""
    train: "Train"
    """The recipe's own section, over which new values are checked."""

    @cached_property
    def importance(self) -> "Importance":
        """Of each key of the space; what loads its libraries first waits for seconds."""
        from pipelines.search.importance import importance

        return importance(self.standing)


def sweeps(recipe_name: str | None) -> "Known[list[SweepLine]]":
    """The sweeps of this recipe, or of all, the one with the newest event first."""

    def read() -> "list[SweepLine]":
        from pipelines.search.listing import lines

        return lines(backend.workspace(), recipe_name)

    return backend.from_database(("sweeps", recipe_name), read)


def sweep(name: str) -> Known[SweepView | None]:
    """One sweep; the value is None when there is none of that name."""
    return backend.from_database(("sweep", name), lambda: _sweep(name))


def _sweep(name: str) -> SweepView | None:
    from pipelines.search.listing import find

    found = find(backend.workspace(), name)
    if found is None:
        return None
    history, recipe_name = found
    events = history.events()
    report = _report(name, recipe_name)
    return _view(_Events(name, events), recipe_name, report[0], report[1])


class _Events:
    """A history that is the same as another of the same length: rows are only ever added."""

    def __init__(self, sweep: str, events: "list[Event]") -> None:
        self.sweep, self.events = sweep, events
        self._key = (sweep, events[-1].id, events[-1].at)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Events) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _report(name: str, recipe_name: str) -> tuple[str, str]:
    """As JSON: the gain that the sweep's report tells, and the recipe's newest train section."""
    import json

    reports = backend.workspace().reports(stage="sweep", recipe_name=recipe_name, limit=20)
    own = next((report for report in reports if report.figures.get("sweep") == name), None)
    newest = [own] if own else backend.workspace().reports(recipe_name=recipe_name, limit=1)
    train = newest[0].recipe.get("train") if newest else None
    return json.dumps(own.figures.get("against_default") if own else None), json.dumps(train)


@lru_cache(maxsize=16)
def _view(history: _Events, recipe_name: str, interval: str, train: str) -> SweepView:
    """All figures of a sweep; they change only with its history and its report."""
    import json

    from pipelines.recipe import Train
    from pipelines.search import comparison, reading
    from pipelines.search.history import fold
    from pipelines.search.requests import requests_of

    events = history.events
    standing = fold(history.sweep, events)
    space = standing.plan.get("space", {})
    return SweepView(
        sweep=history.sweep,
        recipe_name=recipe_name,
        standing=standing,
        last_at=events[-1].at,
        opened_at=events[0].at,
        rows=reading.rows(standing),
        values={
            trial.trial: {key: comparison.value_of(standing, trial, key) for key in space}
            for trial in standing.trials.values()
        },
        states={str(state): count for state, count in reading.states(standing).items()},
        spent=reading.spent(standing, events),
        leader=reading.leader(standing),
        gain=reading.against_default(standing),
        interval=json.loads(interval),
        curves=reading.curves(standing),
        best=reading.best_so_far(standing),
        compared=comparison.compare(standing),
        spans=reading.timeline(standing),
        requests=requests_of(events),
        train=comparison.own_train(standing) or Train.model_validate(json.loads(train) or {}),
    )


def importance(view: SweepView) -> "Known[Importance]":
    """How much each key of the space mattered."""
    key = ("importance", view.sweep)
    return backend.known.read(key, "Optuna", IMPORTANCE_REMEDY, lambda: view.importance, deadline_s=IMPORTANCE_S)


def ask(view: SweepView, action: "Action", trial: str, by: str, **content: Any) -> "Known[Request]":
    """Ask the driver for something and wait a moment for its answer."""
    from pipelines.search.history import History
    from pipelines.search.requests import ask, wait_for_answer

    if not by.strip():
        return Known(None, None, Problem("Nothing was asked: it needs a name.", NAME_REMEDY))
    history = History(backend.workspace(), view.sweep, view.recipe_name)
    try:
        number = ask(history, action, trial, by=by, train=view.train, **content)
        return Known(wait_for_answer(history, number, WAIT_S), None)
    except Exception as error:
        # Whatever went wrong is a sentence on the page.
        return Known(None, None, problem_of(error, "The database", backend.DATABASE_REMEDY))


def refusal(view: SweepView, action: "Action", trial: str, **content: Any) -> str:
    """Why the sweep would refuse this; empty when it would not."""
    from pipelines.search.history import check_request
    from pipelines.search.requests import check_values

    try:
        check_request(view.standing, action, trial, content)
        if content.get("values"):
            parent = view.standing.trials[trial].values if trial else {}
            check_values(view.train, content["values"], parent)
    except UserError as error:
        return error.message
    return ""


def start_values(view: SweepView, trial: str = "") -> dict[str, Any]:
    """The train section that a clone of the trial (or a new one) begins with, as plain values."""
    values = view.standing.trials[trial].values if trial else {}
    return view.train.model_dump(mode="json") | values


def keys(view: SweepView, *, clone: bool) -> tuple[list[str], list[str]]:
    """Keys of train that may differ: those of the space, and the others."""
    from pipelines.recipe import NOT_SWEPT, Train
    from pipelines.search.history import SHAPING

    kept: Sequence[str] = SHAPING if clone else ()
    free = [key for key in Train.model_fields if key not in NOT_SWEPT and key not in kept]
    space = view.standing.plan.get("space", {})
    return [key for key in free if key in space], [key for key in free if key not in space]


def expected(recipe: "Recipe") -> "Known[Estimate | None]":
    """What the recipe's sweep will take; the value is None when it has none."""

    def read() -> "float | None":
        from pipelines.search.estimate import measured_seconds_per_step

        return measured_seconds_per_step(backend.workspace(), recipe)

    if recipe.sweep is None:
        return Known(None, None)
    from pipelines.search.estimate import estimate

    speed = backend.from_database(("seconds per step", recipe.base.base, recipe.train.method), read)
    concurrent = recipe.cluster.max_concurrent_trials or 1
    return Known(estimate(recipe, recipe.sweep, concurrent, speed.value), speed.read_at, speed.problem)
