"""What a sweep's standing says: rows for its table, curves and timeline, who leads, what was spent. Pure."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.search.history import Event, Standing, State, Trial
from pipelines.search.winner import furthest


@dataclass(frozen=True)
class Row:
    """A trial in the table."""

    trial: str
    state: State
    step: int
    loss: float | None
    values: dict[str, Any]
    origin: str
    parent: str
    seed: int | None
    seconds: float
    cost: float | None
    """In the price's currency; None without a price."""
    because: str


@dataclass(frozen=True)
class Spent:
    """What the sweep has taken, and what it may take."""

    seconds: float
    """Of all trials together."""
    hours: float
    """Wall-clock while a driver was at work."""
    cost: float | None
    max_hours: float | None
    max_cost: float | None


@dataclass(frozen=True)
class Gain:
    """The leader against the recipe's own values after the same steps."""

    trial: str
    step: int
    loss: float
    default: float

    @property
    def difference(self) -> float:
        """Below zero where the leader is better; nats."""
        return self.loss - self.default


@dataclass(frozen=True)
class Best:
    """A moment from which on a trial led."""

    at: float
    """Unix time."""
    trial: str
    step: int
    loss: float


@dataclass(frozen=True)
class Span:
    """A piece of work: which trial had its turn where and when."""

    trial: str
    place: str
    began: float
    """Unix time."""
    seconds: float
    step: int | None
    """After it, where it ended with a validation."""


def rows(standing: Standing) -> list[Row]:
    """The trials in the order in which they were drawn."""
    return [
        Row(
            trial.trial,
            trial.state,
            trial.step,
            trial.loss,
            trial.values,
            trial.origin,
            trial.parent,
            trial.seed,
            trial.seconds,
            cost_of(standing, trial.seconds),
            trial.because,
        )
        for trial in standing.trials.values()
    ]


def cost_of(standing: Standing, seconds: float) -> float | None:
    """What so many seconds of a trial cost, over all of its workers; None without a price."""
    price = standing.plan.get("price_per_hour")
    return None if price is None else seconds / 3600 * standing.plan.get("workers", 1) * price


def spent(standing: Standing, events: Iterable[Event]) -> Spent:
    """What the sweep has taken so far; `events`: those that the standing comes from."""
    plan, seconds = standing.plan, standing.seconds
    hours = driven_seconds(events) / 3600
    return Spent(seconds, hours, cost_of(standing, seconds), plan.get("max_hours"), plan.get("max_cost"))


def driven_seconds(events: Iterable[Event]) -> float:
    """Wall-clock seconds of the drivers, each from where it opened the sweep to the last that it wrote."""
    total, begun, last = 0.0, None, None
    for event in events:
        if event.kind == "opened":
            total += (last - begun).total_seconds() if begun and last else 0.0
            begun = event.at
        # What people ask says nothing of a driver.
        last = event.at if event.kind != "asked" else last
    return total + ((last - begun).total_seconds() if begun and last else 0.0)


def states(standing: Standing) -> dict[State, int]:
    """State -> trials in it, of those that occur."""
    order: tuple[State, ...] = ("running", "waiting", "paused", "finished", "stopped", "failed")
    counted = {state: sum(trial.state == state for trial in standing.trials.values()) for state in order}
    return {state: count for state, count in counted.items() if count}


def leader(standing: Standing) -> Trial | None:
    """The lowest loss among the trials that went furthest, the earlier of equals; None before any validation."""
    return next(iter(furthest(standing)), None)


def against_default(standing: Standing) -> Gain | None:
    """The leader against the recipe's own values, at the furthest step that both reached; None without both."""
    leading = leader(standing)
    default = next((trial for trial in standing.trials.values() if trial.origin == "default"), None)
    if leading is None or default is None:
        return None
    losses = {chunk.step: chunk.loss for chunk in default.chunks if math.isfinite(chunk.loss)}
    shared = [chunk for chunk in leading.chunks if chunk.step in losses]
    return Gain(leading.trial, shared[-1].step, shared[-1].loss, losses[shared[-1].step]) if shared else None


def curves(standing: Standing) -> dict[str, list[tuple[int, float, float]]]:
    """Trial -> its (step, validation loss, unix time), a clone's from its parent's on; only losses that are numbers."""
    drawn = {}
    for trial in standing.trials.values():
        before = standing.trials[trial.parent].chunks if trial.parent in standing.trials else []
        chunks = [chunk for chunk in before if trial.begins and chunk.step == trial.begins] + trial.chunks
        drawn[trial.trial] = [(c.step, c.loss, c.began + c.seconds) for c in chunks if math.isfinite(c.loss)]
    return drawn


def best_so_far(standing: Standing) -> list[Best]:
    """The leaders one after another; one that went further takes the lead whatever its loss."""
    known = [
        Best(_known_at(trial, place), trial.trial, chunk.step, chunk.loss)
        for trial in standing.trials.values()
        if trial.seed is None and trial.state != "failed"
        for place, chunk in enumerate(trial.chunks)
        if math.isfinite(chunk.loss)
    ]
    led: list[Best] = []
    for each in sorted(known, key=lambda best: best.at):
        if not led or each.step > led[-1].step or (each.step == led[-1].step and each.loss < led[-1].loss):
            led.append(each)
    return led


def _known_at(trial: Trial, place: int) -> float:
    # Of validations within one piece only the last carries its seconds.
    chunk = trial.chunks[place]
    piece = [c.seconds for c in trial.chunks[place:] if c.began == chunk.began]
    return chunk.began + max(piece, default=0.0)


def timeline(standing: Standing) -> list[Span]:
    """What ran where, the earliest first."""
    spans = []
    for trial in standing.trials.values():
        spans += [Span(trial.trial, c.place, c.began, c.seconds, c.step) for c in trial.chunks if c.seconds > 0]
        spans += [Span(trial.trial, place, began, seconds, None) for began, seconds, place in trial.turns]
    return sorted(spans, key=lambda span: span.began)


def word(value: Any) -> str:
    """A value in a few letters: numbers to four digits, what is nested as JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def told(values: dict[str, Any]) -> str:
    """Values on a line; those of the recipe itself have none."""
    return ", ".join(f"{key} {word(value)}" for key, value in values.items()) or "the recipe's own values"
