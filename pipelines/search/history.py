"""A sweep's history: what happened and what people asked for, one row each, never changed.

Everything that is shown or resumed is folded from it: a page that is opened anew and a driver that starts again see
the same sweep.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cluster.errors import UserError
from pipelines.records import SweepEventRow
from pipelines.section import nearest
from pipelines.workspace import Workspace

Kind = Literal[
    "opened",  # content: the plan of the sweep, as `Plan` has it
    "proposed",  # values, origin, parent: a trial was drawn, added or cloned
    "rung",  # step, loss, train_loss, losses, began, seconds, place: a chunk was learnt and validated
    "turn",  # began, seconds, place: a chunk was learnt that ends at no rung
    "retried",  # cause: a chunk failed and will be tried once more
    "paused",
    "resumed",
    "ended",  # how, because: a trial is over
    "extended",  # trials, hours, cost: the budget as it is now
    "asked",  # action and what it needs: what a person wants; the driver answers
    "answered",  # request, problem: done, or why not
    "closed",  # because: the search is over
]
Action = Literal["stop", "pause", "resume", "clone", "add", "extend"]
Origin = Literal["default", "prior", "search", "added", "clone", "seed"]
"""`seed`: the values of another trial under another seed, or a clone's values from the base on."""
State = Literal["waiting", "running", "paused", "stopped", "failed", "finished"]
ENDED: tuple[State, ...] = ("stopped", "failed", "finished")
SHAPING = ("method", "lora_r", "target_modules", "use_dora")
"""Keys that decide which weights there are: a clone has its parent's."""


@dataclass(frozen=True)
class Event:
    """One row of the history."""

    id: int
    sweep: str
    kind: Kind
    trial: str
    """Empty where it concerns the sweep as a whole."""
    content: dict[str, Any]
    by: str
    """Who asked; empty where the sweep itself decided."""
    at: datetime


@dataclass(frozen=True)
class Entry:
    """An event that is yet to be written."""

    kind: Kind
    trial: str
    by: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Steps that a trial went in one piece, up to a validation."""

    step: int
    """After it."""
    loss: float
    """Validation loss after it, in nats."""
    train_loss: float
    began: float
    """Unix time."""
    seconds: float
    place: str
    """Machine and process."""
    losses: tuple[float, ...] = ()
    """Summed loss of each validation example, the same examples in every trial."""
    step_seconds: float = 0.0
    """What an optimiser step took, over all of the trial's: without loading, validation and waiting."""


@dataclass
class Trial:
    """A trial as its history tells it."""

    trial: str
    values: dict[str, Any]
    origin: Origin
    parent: str = ""
    seed: int | None = None
    """Where it is not the recipe's: a trial that confirms another."""
    begins: int = 0
    """Steps that a clone's parent had gone when it was asked for."""
    state: State = "waiting"
    because: str = ""
    """Why it ended, or why it waits."""
    chunks: list[Chunk] = field(default_factory=list)
    turns: list[tuple[float, float, str]] = field(default_factory=list)
    """Chunks that ended at no validation: when they began, seconds, place."""
    retries: int = 0
    """Times that it broke off by itself and was taken up again."""
    deaths: int = 0
    """Times that its worker died under it."""

    @property
    def step(self) -> int:
        """Steps it has gone."""
        return self.chunks[-1].step if self.chunks else 0

    @property
    def loss(self) -> float | None:
        """Validation loss after its last step."""
        return self.chunks[-1].loss if self.chunks else None

    @property
    def seconds(self) -> float:
        """Spent on it."""
        return sum(chunk.seconds for chunk in self.chunks) + sum(seconds for _, seconds, _ in self.turns)

    def loss_at(self, step: int) -> float | None:
        """Validation loss after so many steps."""
        return next((chunk.loss for chunk in self.chunks if chunk.step == step), None)


@dataclass
class Standing:
    """A sweep as its history tells it."""

    sweep: str
    plan: dict[str, Any] = field(default_factory=dict)
    """rungs, num_samples, max_hours, max_cost, price_per_hour, search, scheduler, objectives, space, seed, base."""
    trials: dict[str, Trial] = field(default_factory=dict)
    """By name, in the order they were drawn."""
    open_requests: list[Event] = field(default_factory=list)
    closed: str = ""
    """Why the search is over; empty while it goes on."""

    def of(self, trial: str) -> Trial:
        """The trial of that name. Raises UserError when there is none."""
        if trial not in self.trials:
            raise UserError(f"The sweep has no trial '{trial}'{nearest(trial, self.trials)}.", "See `sluice trials`.")
        return self.trials[trial]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which trials are validated."""
        return tuple(self.plan.get("rungs", ()))

    @property
    def seconds(self) -> float:
        """Spent on all trials together."""
        return sum(trial.seconds for trial in self.trials.values())


def fold(sweep: str, events: Iterable[Event]) -> Standing:
    """What the events, oldest first, come to. Pure."""
    standing = Standing(sweep)
    for event in events:
        follow(standing, event)
    return standing


def follow(standing: Standing, event: Event) -> None:
    """Let the sweep's standing take in one more event. Pure but for that."""
    content = event.content
    if event.kind == "opened":
        # A driver that goes on opens it again.
        standing.plan, standing.closed = {**content, **_extended(standing.plan)}, ""
        for trial in standing.trials.values():
            if trial.state == "running":
                trial.state = "waiting"
    elif event.kind == "extended":
        standing.plan |= {**content, "extended": standing.plan.get("extended", {}) | content}
    elif event.kind == "closed":
        standing.closed = str(content["because"])
    elif event.kind == "asked":
        standing.open_requests.append(event)
    elif event.kind == "answered":
        standing.open_requests = [each for each in standing.open_requests if each.id != content["request"]]
    elif event.kind == "proposed":
        standing.trials[event.trial] = Trial(
            event.trial,
            content["values"],
            content["origin"],
            content.get("parent", ""),
            content.get("seed"),
            content.get("begins", 0),
        )
    else:
        _follow_trial(standing.trials[event.trial], event)


def _extended(plan: dict[str, Any]) -> dict[str, Any]:
    kept = plan.get("extended", {})
    return {**kept, "extended": kept} if kept else {}


def _follow_trial(trial: Trial, event: Event) -> None:
    content = event.content
    if event.kind == "rung":
        losses = tuple(content.get("losses", ()))
        names = ("step", "loss", "train_loss", "began", "seconds", "place")
        known = {name: content[name] for name in names}
        trial.chunks.append(Chunk(**known, losses=losses, step_seconds=content.get("step_seconds", 0.0)))
        trial.state = "running" if trial.state == "waiting" else trial.state
    elif event.kind == "turn":
        trial.turns.append((content["began"], content["seconds"], content["place"]))
        trial.state = "running" if trial.state == "waiting" else trial.state
    elif event.kind == "retried":
        trial.because = content["cause"]
        if content.get("died"):
            trial.deaths += 1
        else:
            trial.retries += 1
    elif event.kind == "paused":
        trial.state, trial.because = "paused", f"paused by {event.by}" if event.by else "paused"
    elif event.kind == "resumed":
        trial.state, trial.because = "running" if trial.chunks else "waiting", ""
    elif event.kind == "ended":
        trial.state, trial.because = content["how"], content["because"]


class History:
    """The history of one sweep in the database."""

    def __init__(self, workspace: Workspace, sweep: str, recipe_name: str) -> None:
        self._workspace, self.sweep, self._recipe_name = workspace, sweep, recipe_name

    def add(self, kind: Kind, trial: str = "", by: str = "", **content: Any) -> int:
        """Write an event; its number."""
        return self.add_all([Entry(kind, trial, by, content)])

    def add_all(self, entries: "list[Entry]") -> int:
        """Write events that happened together: all of them or none; the number of the last."""
        rows = [
            SweepEventRow(
                sweep=self.sweep,
                recipe_name=self._recipe_name,
                kind=entry.kind,
                trial=entry.trial,
                content=entry.content,
                by=entry.by,
            )
            for entry in entries
        ]
        with Session(self._workspace.database) as session, session.begin():
            for row in rows:
                session.add(row)
                # One by one: their numbers are their order.
                session.flush()
            return rows[-1].id

    def events(self, after: int = 0) -> list[Event]:
        """Those after the event of that number, oldest first."""
        query = select(SweepEventRow).where(SweepEventRow.sweep == self.sweep, SweepEventRow.id > after)
        with Session(self._workspace.database) as session:
            return [_event(row) for row in session.scalars(query.order_by(SweepEventRow.id))]

    def standing(self) -> Standing:
        """The sweep as it is now."""
        return fold(self.sweep, self.events())

    def ask(self, action: Action, trial: str = "", by: str = "", **content: Any) -> int:
        """Ask the driver for something; the number of the request.

        Raises UserError when the sweep cannot do it: what is asked is checked against it as it is now.
        """
        check_request(self.standing(), action, trial, content)
        return self.add("asked", trial, by, action=action, **content)


@dataclass(frozen=True)
class SweepEntry:
    """A sweep in the list of all."""

    sweep: str
    recipe_name: str
    opened_at: datetime
    last_at: datetime


def sweeps(workspace: Workspace, recipe_name: str | None = None) -> list[SweepEntry]:
    """The sweeps with a history, the one with the newest event first."""
    last = func.max(SweepEventRow.created_at)
    query = select(SweepEventRow.sweep, SweepEventRow.recipe_name, func.min(SweepEventRow.created_at), last)
    if recipe_name:
        query = query.where(SweepEventRow.recipe_name == recipe_name)
    with Session(workspace.database) as session:
        found = session.execute(query.group_by(SweepEventRow.sweep, SweepEventRow.recipe_name).order_by(last.desc()))
        return [SweepEntry(*row) for row in found]


def open_history(workspace: Workspace, recipe_name: str, sweep: str = "") -> History:
    """The history of that sweep, else of the recipe's newest. Raises UserError when there is none."""
    known = sweeps(workspace, recipe_name)
    if known and sweep:
        names = [entry.sweep for entry in known]
        known = [entry for entry in known if entry.sweep == sweep]
        if not known:
            raise UserError(f"{recipe_name} has no sweep {sweep}{nearest(sweep, names)}.", "The panel lists them.")
    if not known:
        raise UserError(f"{recipe_name} has no sweep yet.", "`sluice sweep RECIPE` starts one.")
    return History(workspace, known[0].sweep, recipe_name)


def check_request(standing: Standing, action: Action, trial: str, content: dict[str, Any]) -> None:
    """Raise UserError, with the remedy, for what the sweep as it stands cannot do. Pure."""
    if standing.closed:
        raise UserError(
            f"The sweep {standing.sweep} is over: {standing.closed}.",
            "`sluice sweep --fresh`, or another sweep section, begins a new search.",
        )
    if action in ("stop", "pause", "resume", "clone"):
        found = standing.of(trial)
        if action in ("stop", "pause") and found.state in ENDED:
            raise UserError(f"{trial} has ended: {found.because}.", "Clone it to go on from its weights.")
        if action == "pause" and found.state == "paused":
            raise UserError(f"{trial} is paused already.", "`resume` lets it go on.")
        if action == "resume" and found.state != "paused":
            raise UserError(f"{trial} is {found.state}, not paused.", "Only a paused trial can be resumed.")
        shaping = next((key for key in SHAPING if action == "clone" and key in content.get("values", {})), None)
        if shaping:
            raise UserError(
                f"A clone goes on from {trial}'s weights, and {shaping} would need others.",
                "`add` tries these values from the base on.",
            )
        if action == "clone" and standing.rungs and found.step >= standing.rungs[-1]:
            raise UserError(f"{trial} has gone all its steps.", "`add` tries these values from the base on.")
        if action == "clone" and not found.chunks:
            raise UserError(f"{trial} has no weights yet.", "Wait for its first validation, or add its values anew.")
    if action in ("clone", "add") and not content.get("values"):
        raise UserError(f"{action} needs values to change.", "Name them as KEY=VALUE, as in learning_rate=2e-4.")
    if action == "extend":
        more = [content[name] for name in ("trials", "hours", "cost") if content.get(name) is not None]
        if not more or not all(math.isfinite(number) and number > 0 for number in more):
            raise UserError("extend needs what to add, above 0.", "Name trials, hours or cost.")


def _event(row: SweepEventRow) -> Event:
    return Event(row.id, row.sweep, row.kind, row.trial, row.content, row.by, row.created_at)  # type: ignore[arg-type]
