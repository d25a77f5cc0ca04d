"""How many steps, when to validate, and the learning rate at each step. Pure."""

import math
from dataclasses import dataclass

from pipelines.recipe import Train


@dataclass(frozen=True)
class Plan:
    """The steps of a run."""

    steps: int
    """Optimiser steps until the end, if nothing stops it."""
    steps_per_epoch: int
    eval_every: int
    """Steps between validations."""
    warmup: int
    """Steps to the peak."""

    def validates(self, step: int) -> bool:
        """Whether the model is validated after `step` steps; always at the end."""
        return step == self.steps or step % self.eval_every == 0


def plan_steps(train: Train, bins: int, *, limit: int | None = None) -> Plan:
    """The plan for a training side of so many bins; `limit` bounds the steps beyond the recipe (trials)."""
    per_epoch = max(1, math.ceil(bins / train.global_batch_size))
    steps = train.max_steps or max(1, math.ceil(per_epoch * train.num_train_epochs - 1e-9))
    steps = min(steps, limit) if limit else steps
    return Plan(
        steps=steps,
        steps_per_epoch=per_epoch,
        eval_every=_steps(train.eval_steps, steps),
        warmup=0 if train.warmup_steps == 0 else _steps(train.warmup_steps, steps),
    )


def _steps(value: float, steps: int) -> int:
    """Below 1 a share of all steps, as in transformers 5."""
    return min(steps, max(1, math.ceil(value * steps - 1e-9) if value < 1 else round(value)))


def learning_rate(train: Train, plan: Plan, step: int) -> float:
    """The rate for the step numbered `step` (from 0): linear warm-up, then the recipe's course."""
    peak = train.peak_learning_rate
    if step < plan.warmup:
        return peak * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    if train.lr_scheduler_type == "linear":
        return peak * (1 - done)
    if train.lr_scheduler_type == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak
