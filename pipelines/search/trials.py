"""What the trials of a sweep share, and the training job of one of them."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cluster.errors import UserError
from pipelines.recipe import Sweep, Train
from pipelines.search.history import Trial
from pipelines.search.schedulers import rungs
from pipelines.search.space import with_values
from pipelines.training.job import Job
from pipelines.training.schedule import plan_steps
from pipelines.training.trainer import Place

VALIDATION_BINS = 16
"""Validation sequences of a trial (the same for all): enough to rank, cheap enough to repeat."""


@dataclass(frozen=True)
class Trials:
    """What every trial of a sweep shares."""

    job: Job
    """Without a trial's values in it."""
    bins: int
    """Of the training side."""
    sweep: Sweep
    train: Train
    """The recipe's own."""
    place: Place
    seed: int
    checkpoints: str
    """Address below which each trial keeps its own."""
    concurrent: int
    prior: tuple[dict[str, Any], ...] = ()
    """Values of earlier winners, the best first."""


def trial_train(shared: Trials, values: dict[str, Any]) -> Train:
    """The train section of a trial. Raises UserError where values contradict each other."""
    try:
        return with_values(shared.train, values)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        shown = ", ".join(f"{key} {value}" for key, value in values.items())
        raise UserError(f"{shown}: {reason}.", "Choose values that go together.") from None


def trial_job(shared: Trials, trial: Trial) -> Job:
    """The job of a trial: its values, its steps with a schedule of their own, checkpoints but no exported weights."""
    train = trial_train(shared, trial.values)
    # Trials are compared after equally many steps, however short the recipe's own training is.
    plan = plan_steps(train.model_copy(update={"max_steps": shared.sweep.max_steps}), shared.bins)
    return replace(
        shared.job,
        train=train.model_dump(mode="json"),
        plan=plan,
        seed=shared.seed if trial.seed is None else trial.seed,
        validation_seed=shared.seed,
        checkpoints=f"{shared.checkpoints}/{trial.trial}",
        rungs=rungs(shared.sweep),
        validation_bins=VALIDATION_BINS,
        label=trial.trial,
        values=trial.values,
    )
