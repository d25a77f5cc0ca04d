"""When trials are compared, and who goes on."""

from typing import Any

from pipelines.recipe import Sweep


def rungs(sweep: Sweep) -> tuple[int, ...]:
    """Steps at which trials are validated: successive halving's rungs, and the last step. Pure."""
    if sweep.scheduler == "fifo":
        return (sweep.max_steps,)
    steps, step = [], sweep.grace_steps
    while step < sweep.max_steps:
        steps.append(step)
        step *= sweep.reduction_factor
    return (*steps, sweep.max_steps)


def make_scheduler(sweep: Sweep) -> Any:
    """Ray Tune's scheduler: ASHA (Li et al. 2018) on the validation loss at each rung, or none."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if sweep.scheduler == "fifo":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return ASHAScheduler(
        time_attr="step",
        grace_period=sweep.grace_steps,
        reduction_factor=sweep.reduction_factor,
        max_t=sweep.max_steps,
        # A trial ends by itself at its last step, after it has said how it ended.
        stop_last_trials=False,
    )
