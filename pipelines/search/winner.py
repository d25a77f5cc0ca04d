"""Which trial wins, and what it is worth. Pure.

A loss at an early step is no rival of one at the end, and a clone went on from weights that its values alone do not
give: it cannot win before its values were run from the base on.
"""

import math
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from pipelines.search.history import Standing, Trial

TOLERANCE = 0.01
"""Within this share of the lowest loss the cheaper trial wins, where cost is an objective."""
CONFIRMED = 3
"""Trials that are run under further seeds."""


@dataclass(frozen=True)
class Winner:
    """The trial that wins, with its evidence."""

    trial: str
    values: dict[str, Any]
    step: int
    validation_loss: float
    """Under the recipe's seed; nats."""
    losses: tuple[float, ...]
    """Under all seeds that it was run with, the recipe's first."""
    mean: float
    low: float | None
    high: float | None
    """95 % interval of the mean over seeds (Student's t); None with one seed."""
    seconds_per_step: float
    """Of optimiser steps alone."""


def furthest(standing: Standing, *, clones: bool = True) -> list[Trial]:
    """The sound trials of the recipe's seed that went as far as any, the lowest loss first."""
    sound = [
        trial
        for trial in standing.trials.values()
        if trial.seed is None
        and trial.state != "failed"
        and trial.loss is not None
        and math.isfinite(trial.loss)
        and (clones or trial.origin != "clone")
    ]
    last = max((trial.step for trial in sound), default=0)
    return sorted((trial for trial in sound if trial.step == last), key=lambda trial: trial.chunks[-1].loss)


def choose(standing: Standing) -> Winner | None:
    """The winner; None when no trial came to a loss."""
    rivals = [_winner(standing, trial) for trial in furthest(standing, clones=False)]
    if not rivals:
        return None
    seeds = max(len(rival.losses) for rival in rivals)
    confirmed = [rival for rival in rivals if len(rival.losses) == seeds]
    # One seed's luck is no rival of a mean over several; a confirmation that was broken off says nothing.
    rivals = confirmed if len(confirmed) >= min(CONFIRMED, len(rivals)) else [_first_seed(rival) for rival in rivals]
    best = min(rivals, key=lambda rival: rival.mean)
    if len(standing.plan.get("objectives", ())) < 2:
        return best
    near = [rival for rival in rivals if rival.mean <= best.mean * (1 + TOLERANCE)]
    return min(near, key=lambda rival: rival.seconds_per_step)


def _winner(standing: Standing, trial: Trial) -> Winner:
    again = [
        # A seed under which it failed rules it out.
        math.inf if other.state == "failed" else other.chunks[-1].loss
        for other in standing.trials.values()
        if other.parent == trial.trial
        and other.seed is not None
        and (other.state == "failed" or (other.step == trial.step and other.chunks))
    ]
    losses = (trial.chunks[-1].loss, *again)
    low = high = None
    if again and all(map(math.isfinite, again)):
        from scipy.special import stdtrit

        half = float(stdtrit(len(losses) - 1, 0.975)) * stdev(losses) / math.sqrt(len(losses))
        low, high = mean(losses) - half, mean(losses) + half
    return Winner(
        trial.trial,
        trial.values,
        trial.step,
        losses[0],
        losses,
        mean(losses),
        low,
        high,
        trial.chunks[-1].step_seconds,
    )


def _first_seed(rival: Winner) -> Winner:
    """The same, judged by the recipe's seed alone."""
    return replace(rival, losses=rival.losses[:1], mean=rival.validation_loss, low=None, high=None)


def unproven_clone(standing: Standing) -> Trial | None:
    """The clone that leads at its end and whose values nobody has run from the base on; None when there is none."""
    leading = furthest(standing)
    if not leading or leading[0].origin != "clone" or leading[0].state != "finished":
        return None
    proven = {trial.parent for trial in standing.trials.values() if trial.origin == "seed" and trial.seed is None}
    return None if leading[0].trial in proven else leading[0]


def to_confirm(standing: Standing, seeds: int, seed: int) -> list[tuple[Trial, int]]:
    """The best three with each seed under which they were not run yet."""
    best = furthest(standing, clones=False)[:CONFIRMED]
    done = {(trial.parent, trial.seed) for trial in standing.trials.values()}
    wanted = [(trial, seed + number) for trial in best for number in range(1, seeds + 1)]
    return [(trial, other) for trial, other in wanted if (trial.trial, other) not in done]
