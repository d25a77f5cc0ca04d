"""What a sweep will take before it starts: trials, steps, hours and what they cost."""

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pipelines.recipe import Recipe, Sweep, Train
from pipelines.search.schedulers import rungs
from pipelines.search.space import grid, space_of
from pipelines.search.winner import CONFIRMED

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

SWEEPS_READ, REPORTS_READ = 10, 50


@dataclass(frozen=True)
class Estimate:
    """What is expected."""

    trials: int
    steps: int
    """Optimiser steps of all trials together."""
    at_most: bool
    """Whether this is a bound: how many the median rule stops, nobody knows before."""
    seconds_per_step: float | None
    """As earlier work over the same base had it; None where there is none."""
    hours: float | None
    """Wall-clock."""
    cost: float | None
    """In the price's currency; None without a price."""


def estimate(recipe: Recipe, sweep: Sweep, concurrent: int, seconds_per_step: float | None) -> Estimate:
    """What the sweep is expected to take with so many trials at the same time. Pure."""
    trials = trials_of(sweep, recipe.train)
    confirming = sweep.confirm_seeds * min(CONFIRMED, trials)
    steps = steps_of(sweep, trials) + confirming * sweep.max_steps
    concurrent = min(concurrent, trials)
    hours = None if seconds_per_step is None else steps * seconds_per_step / concurrent / 3600
    if hours is not None and sweep.max_hours is not None:
        hours = min(hours, sweep.max_hours)
    cluster, cost = recipe.cluster, None
    if hours is not None and cluster.price_per_hour is not None:
        cost = hours * concurrent * cluster.num_workers * cluster.price_per_hour
        cost = cost if sweep.max_cost is None else min(cost, sweep.max_cost)
    return Estimate(trials + confirming, steps, sweep.scheduler == "median", seconds_per_step, hours, cost)


def trials_of(sweep: Sweep, train: Train) -> int:
    """Trials of the search: a grid's points and the recipe's own values, else num_samples."""
    if sweep.search != "grid":
        return sweep.num_samples
    return len(grid(space_of(sweep, train), train)) + sweep.default_trial


def steps_of(sweep: Sweep, trials: int) -> int:
    """Optimiser steps of so many trials: successive halving lets one in reduction_factor past each rung, the best."""
    if sweep.scheduler != "asha":
        return trials * sweep.max_steps
    total, before, left = 0, 0, trials
    for rung in rungs(sweep):
        total += left * (rung - before)
        before, left = rung, math.ceil(left / sweep.reduction_factor)
    return total


def measured_seconds_per_step(workspace: "Workspace", recipe: Recipe) -> float | None:
    """Seconds per optimiser step over the recipe's base and by its method: the median of earlier sweeps' trials.

    Without one, of trainings; None when neither was there.
    """
    from pipelines.search.history import History, sweeps

    base, method = recipe.base.base, recipe.train.method
    found: list[float] = []
    for entry in sweeps(workspace)[:SWEEPS_READ]:
        standing = History(workspace, entry.sweep, entry.recipe_name).standing()
        if standing.plan.get("base") == base and standing.plan.get("train", {}).get("method") == method:
            found += [trial.seconds / trial.step for trial in standing.trials.values() if trial.step]
    if found:
        return median(found)
    for report in workspace.reports(stage="train", limit=REPORTS_READ):
        steps, seconds = report.figures.get("steps"), report.figures.get("step_seconds")
        alike = report.recipe["models"][0]["base"] == base and report.recipe["train"]["method"] == method
        if alike and steps and seconds:
            found.append(seconds / steps)
    return median(found) if found else None
