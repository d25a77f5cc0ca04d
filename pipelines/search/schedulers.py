"""When trials are validated, and which of them go on. Pure.

A trial that was stopped could have won: decisions wait until everyone of the same round is there, which costs nothing
where trials share a base and take turns. An asynchronous rule lets the first through at every rung instead.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median

from pipelines.recipe import Sweep

FEWEST_FOR_MEDIAN = 3
"""Other trials whose middle says something."""


def rungs(sweep: Sweep) -> tuple[int, ...]:
    """Steps at which trials are validated and compared; the last is the end."""
    if sweep.scheduler == "fifo":
        return (sweep.max_steps,)
    if sweep.scheduler == "median":
        return (*range(sweep.grace_steps, sweep.max_steps, sweep.grace_steps), sweep.max_steps)
    steps, step = [], sweep.grace_steps
    while step < sweep.max_steps:
        steps.append(step)
        step *= sweep.reduction_factor
    return (*steps, sweep.max_steps)


def stops(sweep: Sweep, trial: str, step: int, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Why the trial stops after so many steps; empty when it goes on.

    `curves`: of each trial of the sweep, stopped ones too, (step, validation loss) at its rungs.
    """
    if step >= sweep.max_steps or sweep.scheduler == "fifo":
        return ""
    return halved(trial, step, curves, sweep.reduction_factor) if sweep.scheduler == "asha" else behind(
        trial, step, curves
    )  # fmt: skip


def halved(trial: str, step: int, curves: Mapping[str, Sequence[tuple[int, float]]], factor: int) -> str:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): one in `factor` goes on, the best."""
    there = {name: dict(curve)[step] for name, curve in curves.items() if step in dict(curve)}
    # Of equal losses the one that was drawn first.
    order = sorted(there, key=lambda name: (there[name], list(curves).index(name)))
    place, kept = order.index(trial) + 1, math.ceil(len(there) / factor)
    return "" if place <= kept else f"place {place} of {len(there)} at step {step}, {kept} went on"


def behind(trial: str, step: int, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """The median rule (Golovin et al. 2017, section 3.2.2): its best loss is above the middle of the others' means."""
    means = [
        mean(loss for at, loss in curve if at <= step)
        for name, curve in curves.items()
        # Not a clone that began later.
        if name != trial and curve and curve[0][0] <= step <= curve[-1][0]
    ]
    if len(means) < FEWEST_FOR_MEDIAN:
        return ""
    best, middle = min(loss for at, loss in curves[trial] if at <= step), median(means)
    return "" if best <= middle else f"{best:.4f} at step {step}, the middle of {len(means)} others is {middle:.4f}"
