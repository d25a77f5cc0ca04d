"""One trial of a sweep, and all of them under Ray Tune."""

import gc
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import StageFailed, Stopped
from pipelines.recipe import Sweep, Train
from pipelines.search.schedulers import make_scheduler, rungs
from pipelines.search.space import tune_space, with_values
from pipelines.training.bins import BinFile
from pipelines.training.channel import open_mailbox
from pipelines.training.job import Job
from pipelines.training.schedule import plan_steps
from pipelines.training.trainer import Event, Place, cause_of, follow, logs_folder, stop_requested, torch_trainer
from pipelines.training.worker import run_loop
from pipelines.workspace import Workspace

VALIDATION_BINS = 16
"""Validation sequences of a trial (the first ones, the same for all): enough to rank, cheap enough to repeat."""


@dataclass(frozen=True)
class Trials:
    """What every trial of a sweep shares; plain values, so that it travels."""

    job: Job
    """Without a trial's values in it."""
    sweep: Sweep
    place: Place
    name: str
    storage: str
    max_concurrent: int


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    trial: str
    values: dict[str, Any]
    validation_loss: float | None
    """At its last step."""
    steps: int
    stopped: str
    """Why it ended."""
    seconds: float


def trial_job(shared: Trials, values: dict[str, Any], trial: str) -> Job:
    """The job of one trial: its values, its steps with a schedule of their own, nothing kept."""
    train = with_values(Train.model_validate(shared.job.train), values)
    count = len(BinFile(Workspace().fetch(shared.job.bins) / "train.arrow"))
    limit = shared.sweep.max_steps
    # Trials are compared after equally many steps, however short the recipe's own training is.
    plan = plan_steps(train.model_copy(update={"max_steps": limit}), count)
    return replace(
        shared.job,
        train=train.model_dump(mode="json"),
        plan=plan,
        checkpoints="",
        rungs=rungs(shared.sweep),
        validation_bins=VALIDATION_BINS,
        label=trial,
        values=values,
    )


def run_trial(values: dict[str, Any], shared: Trials, mailbox: Any) -> None:
    """Ray Tune's function: train with these values and report at each rung.

    One worker trains in this very process, which Tune hands on to the next trial: its imports are paid once.
    More of them are Ray Train's workers, as in `sluice train`.
    """
    from ray import tune

    trial = label(tune.get_context().get_trial_id())
    job = trial_job(shared, values, trial)
    if shared.place.num_workers > 1:
        from ray.tune.integration.ray_train import TuneReportCallback

        callback = TuneReportCallback()  # type: ignore[no-untyped-call]
        trainer = torch_trainer(
            job, shared.place, f"{trial}-run", f"{shared.storage}/{shared.name}", mailbox, callbacks=[callback]
        )
        outcome = trainer.fit().return_value
    else:
        join_group(job.device)
        try:
            outcome = run_loop(job, rank=0, world=1, mailbox=mailbox, report=tune.report)
        finally:
            gc.collect()
    check_finished(outcome)


def check_finished(outcome: dict[str, Any]) -> None:
    """Raise RuntimeError unless the trial ran to its end: a half-run one is no result."""
    if outcome["status"] != "finished":
        raise RuntimeError(outcome.get("message") or f"{outcome['status']}: {outcome['stopped_because']}")


def label(trial_id: str) -> str:
    """What people call a trial: `trial-1` for the first that was drawn."""
    return f"trial-{int(trial_id.rpartition('_')[2]) + 1}"


def join_group(device: str) -> None:
    """Make this process a process group of one, once."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")
    place = os.path.join(tempfile.mkdtemp(), "store")
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{place}", rank=0, world_size=1)


def run_trials(shared: Trials, seed: int, workspace: Workspace, on_event: Callable[[Event], None]) -> list[TrialResult]:
    """Run the sweep; how each trial ended, in the order they were drawn."""
    # Before Tune is imported: no boxes on standard output, no TensorBoard, JSON and CSV of its own.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Without those files it warns that it cannot read them; failures are told by us.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    mailbox = open_mailbox()
    place, sweep = shared.place, shared.sweep
    # A driver of other workers must ask for next to nothing, or the drivers keep the workers waiting for ever;
    # for nothing at all Tune has no place.
    resources = {"CPU": 0.01} if place.num_workers > 1 else {"CPU": place.cpus_per_worker}
    if place.use_gpu and place.num_workers == 1:
        resources["GPU"] = 1.0
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, shared=shared, mailbox=mailbox), resources),
        param_space=tune_space(sweep.space),
        tune_config=tune.TuneConfig(
            metric="validation_loss",
            mode="min",
            num_samples=sweep.num_samples,
            scheduler=make_scheduler(sweep),
            search_alg=BasicVariantGenerator(random_state=seed, max_concurrent=shared.max_concurrent),
            reuse_actors=True,
            trial_name_creator=lambda trial: label(trial.trial_id),
            trial_dirname_creator=lambda trial: label(trial.trial_id),
        ),
        run_config=tune.RunConfig(name=shared.name, storage_path=shared.storage, verbose=0),
    )
    ended: dict[str, Any] = {}

    def work() -> None:
        try:
            ended["grid"] = tuner.fit()
        except BaseException as error:
            ended["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    begun: dict[str, float] = {}
    last: dict[str, float] = {}

    def note(event: Event) -> None:
        begun.setdefault(event["label"], event["time"])
        last[event["label"]] = event["time"]
        on_event(event)

    started = time.time()
    follow(thread, mailbox, workspace, note)
    if stop_requested(workspace):
        raise Stopped("Sweep stopped: stop requested.", "Run the same command again to start its trials anew.")
    if "error" in ended:
        raise StageFailed(f"Sweep failed: {cause_of(ended['error'])}", f"The trials' logs: {logs_folder()}")
    results = []
    for found in ended["grid"]:
        # A trial's folder bears its name; one that failed at once has no metrics to ask.
        trial = os.path.basename(found.path)
        spent = last.get(trial, started) - begun.get(trial, started)
        results.append(_result(trial, found, sweep, spent))
    return results


def _result(trial: str, found: Any, sweep: Sweep, seconds: float) -> TrialResult:
    metrics = found.metrics or {}
    steps = int(metrics.get("step", 0))
    if found.error:
        lines = [line for line in str(found.error).strip().splitlines() if line.strip()]
        stopped = f"failed: {lines[-1].strip()[:300]}" if lines else "failed"
    else:
        stopped = "the last step" if steps >= sweep.max_steps else f"{sweep.scheduler} stopped it at step {steps}"
    loss = metrics.get("validation_loss")
    return TrialResult(trial, dict(found.config or {}), loss, steps, stopped, round(seconds, 1))


def find_winner(results: list[TrialResult]) -> TrialResult | None:
    """The lowest validation loss among the trials that went furthest; None when none has one. Pure.

    A loss at an early rung is no rival of one at the end.
    """
    whole = [(r.validation_loss, r) for r in results if r.validation_loss is not None]
    sound = [(loss, r) for loss, r in whole if math.isfinite(loss) and not r.stopped.startswith("failed")]
    furthest = max((r.steps for _, r in sound), default=0)
    rivals = [(loss, r) for loss, r in sound if r.steps == furthest]
    return min(rivals, key=lambda pair: pair[0])[1] if rivals else None
