"""Trials by their values and their losses after the same steps: an early loss is no rival of a late one. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.recipe import Train
from pipelines.search.history import Standing, Trial
from pipelines.search.space import applies, domain_of

ENOUGH = 8
"""Trials at the same step before their values are compared."""


@dataclass(frozen=True)
class Axis:
    """A key of the space with its value in each trial of a comparison."""

    key: str
    kind: str
    """choice, loguniform, uniform or randint."""
    values: tuple[Any, ...]
    """None where the key means nothing in that trial, or its value is not on record."""


@dataclass(frozen=True)
class Comparison:
    """Trials by their values and their losses after the same steps."""

    step: int
    trials: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()
    axes: tuple[Axis, ...] = ()


def from_the_base(standing: Standing) -> list[Trial]:
    """The trials whose loss comes of their values: no clone, whose weights are another's too, and no other seed."""
    return [trial for trial in standing.trials.values() if trial.seed is None and trial.origin != "clone"]


def compared_step(standing: Standing, trials: Sequence[Trial], fewest: int) -> int:
    """The furthest step at which so many of the trials have a loss; 0 when there is none."""
    steps = {chunk.step for trial in trials for chunk in trial.chunks}
    return max((step for step in steps if len(_there(trials, step)) >= fewest), default=0)


def compare(standing: Standing, fewest: int = ENOUGH) -> Comparison:
    """Values and losses at the furthest step that `fewest` trials reached, or all where there are fewer."""
    trials = from_the_base(standing)
    begun = sum(any(math.isfinite(chunk.loss) for chunk in trial.chunks) for trial in trials)
    step = compared_step(standing, trials, max(1, min(fewest, begun)))
    there = _there(trials, step)
    axes = [
        Axis(key, domain_of(domain)[0], tuple(value_of(standing, t, key) for t in there))
        for key, domain in standing.plan.get("space", {}).items()
    ]
    return Comparison(
        step,
        tuple(trial.trial for trial in there),
        tuple(float(trial.loss_at(step) or 0.0) for trial in there),
        tuple(axis for axis in axes if any(value is not None for value in axis.values)),
    )


def _there(trials: Sequence[Trial], step: int) -> list[Trial]:
    return [trial for trial in trials if math.isfinite(trial.loss_at(step) or math.nan)]


def own_train(standing: Standing) -> Train | None:
    """The recipe's own train section, where the plan has it."""
    train = standing.plan.get("train")
    return Train.model_validate(train) if train else None


def value_of(standing: Standing, trial: Trial, key: str) -> Any:
    """The trial's value of a key: its own, else the recipe's where the key means something beside the others."""
    if key in trial.values:
        return trial.values[key]
    train = own_train(standing)
    if train is None or not applies(key, standing.plan.get("space", {}).get(key, {}), trial.values, train):
        return None
    return train.model_dump(mode="json")[key]
