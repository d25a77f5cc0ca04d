"""The driver's side of training: starts the workers, shows what they do, keeps the metrics."""

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.connect import connect, preload_workers, uses_gpu
from cluster.errors import StageFailed, Stopped, UserError
from pipelines.progress import Bar, Progress
from pipelines.recipe import Cluster
from pipelines.training.channel import open_mailbox
from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.job import Job
from pipelines.workspace import Workspace

POLL_S = 0.5
STOP_POLL_S = 2.0
MAX_FAILURES = 3
"""Restarts after a worker dies; each goes on from the last complete checkpoint. Machines that were taken away with
notice are not counted: that is no fault of the run."""
START_ATTEMPTS = 2
"""Times that workers are asked for: a machine may fail while it starts."""
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"

Event = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where training runs."""

    num_workers: int
    use_gpu: bool
    accelerator_type: str | None
    cpus_per_worker: float
    start_timeout_s: float = 900.0
    min_workers: int | None = None

    @property
    def device(self) -> str:
        """Of each worker."""
        return "cuda" if self.use_gpu else "cpu"

    @property
    def resources(self) -> dict[str, float]:
        """Of each worker, as Ray counts them."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1.0} if self.use_gpu else {})

    @property
    def request(self) -> str:
        """What the workers ask for, in words."""
        cpus = f"{self.cpus_per_worker:g} CPU"
        each = f"1 {self.accelerator_type or 'GPU'} and {cpus}" if self.use_gpu else cpus
        return f"{self.min_workers or self.num_workers} workers of {each}"


def find_place(cluster: Cluster, workspace: Workspace) -> Place:
    """The workers that the recipe asks for, on what the cluster has; joins the cluster."""
    connect(workspace.settings)
    preload_workers("pipelines.training.preloaded")
    use_gpu = uses_gpu(cluster.use_gpu, cluster.accelerator_type)
    return Place(
        cluster.num_workers,
        use_gpu,
        cluster.accelerator_type,
        cluster.cpus_per_worker,
        cluster.start_timeout_s,
        cluster.min_workers,
    )


def check_resumable(job: Job) -> None:
    """Raise UserError when an earlier version of this program began the run: its checkpoints cannot be read."""
    if CheckpointStore(job.checkpoints).outdated():
        raise UserError(
            "This run was begun by an earlier version of Sluice, whose checkpoints this one does not read.",
            "Start over with --fresh, or finish the run with the version that began it.",
        )


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's function: the outcome of the run (rank 0's is the result)."""
    import ray.train

    # Here and not above: what only workers need takes the drivers seconds to import.
    from pipelines.training.worker import run_loop

    context = ray.train.get_context()
    return run_loop(
        config["job"],
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        mailbox=config.get("mailbox"),
        report=ray.train.report,
        preemption=ray.train.get_preemption_info,
    )


def torch_trainer(job: Job, place: Place, name: str, storage: str, mailbox: Any, **run_options: Any) -> Any:
    """Ray Train's trainer for the job; `name` is stable, so that a rerun is the same run."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray hands it on to the controller, which otherwise asks for what nobody has for ever.
    os.environ[START_TIMEOUT] = str(place.start_timeout_s / START_ATTEMPTS)
    return TorchTrainer(
        train_worker,  # type: ignore[arg-type]
        train_loop_config={"job": job, "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if place.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(place.min_workers, place.num_workers)  # type: ignore[arg-type]
            if place.min_workers
            else place.num_workers,
            use_gpu=place.use_gpu,
            resources_per_worker=place.resources,
            accelerator_type=place.accelerator_type if place.use_gpu else None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=MAX_FAILURES,
                controller_failure_limit=START_ATTEMPTS - 1,
                max_preemption_failures=-1,
            ),
            **run_options,
        ),
    )


def fit(
    job: Job, place: Place, name: str, workspace: Workspace, progress: Progress, on_event: Callable[[Event], None]
) -> dict[str, Any]:
    """Run the job to its end; `on_event` gets each event as it comes. The outcome of rank 0.

    Raises StageFailed when a worker failed beyond recovery or training diverged, Stopped when that was asked for.
    """
    await_room(place)
    mailbox = open_mailbox()
    trainer = torch_trainer(job, place, name, workspace.uri("runs"), mailbox)
    ended: dict[str, Any] = {}

    def work() -> None:
        try:
            ended["result"] = trainer.fit()
        except BaseException as error:
            ended["error"] = error

    # In a thread: the main one shows progress, and Ctrl-C ends the stage instead of Ray's own exit with 0.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with progress.bar("training", job.plan.steps) as bar:
        follow(thread, mailbox, workspace, _Shown(bar, progress, job.plan.steps, place.num_workers, on_event))
    if "error" in ended:
        if never_started(ended["error"]):
            raise no_room(place)
        raise StageFailed(f"Training failed: {cause_of(ended['error'])}", f"The workers' logs: {logs_folder()}")
    outcome: dict[str, Any] = ended["result"].return_value or {}
    if outcome.get("status") == "failed":
        raise StageFailed(outcome["message"], outcome["remedy"])
    if outcome.get("status") == "stopped":
        raise Stopped(
            f"Training stopped at step {outcome['step']} of {job.plan.steps}: stop requested.",
            "Its checkpoint is kept: run the same command again to go on from there.",
        )
    return outcome


def await_room(place: Place) -> None:
    """Where the number of workers may vary, wait until there is room for the fewest: Ray would wait for ever.

    Raises StageFailed when there is none in `place.start_timeout_s`.
    """
    if place.min_workers is None:
        return
    from ray.util import placement_group, remove_placement_group

    each = place.resources | ({f"accelerator_type:{place.accelerator_type}": 0.001} if place.accelerator_type else {})
    # Asking reserves: an autoscaler starts machines for it.
    group = placement_group([each] * place.min_workers)
    try:
        if not group.wait(place.start_timeout_s):
            raise no_room(place)
    finally:
        remove_placement_group(group)


def no_room(place: Place) -> StageFailed:
    """That the workers found no machines."""
    return StageFailed(
        f"No machines for {place.request} in {place.start_timeout_s:g} seconds.",
        "Ask for less in the recipe's cluster section, add machines, or raise cluster.start_timeout_s.",
    )


def follow(
    thread: threading.Thread,
    mailbox: Any,
    workspace: Workspace,
    show: Callable[[Event], None],
) -> None:
    """Hand on events and the wish to stop until the thread ends and the mailbox is empty."""
    import ray

    polled, running = 0.0, True
    while running:
        running = thread.is_alive()
        for event in ray.get(mailbox.take.remote()):
            show(event)
        if running and time.monotonic() - polled > STOP_POLL_S:
            polled = time.monotonic()
            if stop_requested(workspace):
                ray.get(mailbox.ask_stop.remote())
        thread.join(POLL_S)


def stop_requested(workspace: Workspace) -> bool:
    """Whether `sluice stop` was called for the submission that this process belongs to."""
    from pipelines.submissions import stop_requested as asked

    return asked(workspace)


class _Shown:
    """Events on the terminal."""

    def __init__(
        self, bar: Bar, progress: Progress, steps: int, workers: int, on_event: Callable[[Event], None]
    ) -> None:
        self._bar, self._progress, self._steps, self._on_event = bar, progress, steps, on_event
        self._workers = workers
        self._validation = ""
        self._begun: tuple[float, int] | None = None

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        if kind in ("started", "baseline"):
            # The time left is told by steps and the validations between them, not by the start.
            self._begun = (event["time"], event["step"])
        if kind == "joined" and event["workers"] < self._workers:
            self._progress.say(f"training with {event['workers']} of {self._workers} workers: more had no room.")
        if kind == "resumed":
            self._progress.say(f"resumed from the checkpoint of step {event['step']}.")
        elif kind == "preempted":
            left = event["seconds"]
            when = "soon" if left is None else f"in {left:.0f} s"
            self._progress.say(f"a machine will be taken away {when}: checkpoint at step {event['step']}.")
        elif kind == "not_kept":
            self._progress.say(f"the checkpoint of step {event['step']} could not be kept ({event['problem']}).")
        elif kind == "damaged":
            self._progress.say(f"the checkpoint of step {event['step']} is damaged ({event['problem']}): set aside.")
        elif kind in ("baseline", "validation"):
            self._validation = told_validation(event)
            where = "before training" if kind == "baseline" else f"step {event['step']}"
            self._progress.say(f"{where}: {self._validation}")
        elif kind == "batch":
            found = "remembered" if event["remembered"] else f"found by trying; {event['because']}"
            self._progress.say(f"sequences per pass: {event['sequences']} ({found}).")
        elif kind == "overfit":
            since = f"step {event['since_step']}" if event["since_step"] else "the start"
            self._progress.say(
                f"step {event['step']}: overfitting since {since}: validation {event['difference']:+.3f} "
                f"[{event['low']:+.3f}, {event['high']:+.3f}] while training fell to {event['train_loss']:.3f}."
            )
        elif kind == "step":
            note = f"loss {event['loss']:.3f}  {self._validation}  {event['tokens_per_second']:.0f} tokens/s"
            self._bar.update(event["step"], f"{note}  {self._left(event)}")
        self._on_event(event)

    def _left(self, event: Event) -> str:
        if not self._begun or event["step"] <= self._begun[1]:
            return ""
        took = (event["time"] - self._begun[0]) / (event["step"] - self._begun[1])
        minutes, seconds = divmod(round(took * (self._steps - event["step"])), 60)
        return f"{minutes}:{seconds:02d} left"


def never_started(error: BaseException) -> bool:
    """Whether the run ended because its workers found no place."""
    failure = getattr(error, "controller_failure", None)
    return type(failure).__name__ == "WorkerGroupStartupTimeoutError"


def told_validation(event: Event) -> str:
    """A validation in words: of preference pairs how many are told right, else the perplexity."""
    loss = event["loss"]
    if "reward_margin" in event:
        right = f"{event['reward_accuracy']:.0%} of pairs told right"
        return f"validation {loss:.3f}, reward margin {event['reward_margin']:+.3f}, {right}"
    return f"validation {loss:.3f}, perplexity {math.exp(min(loss, 50)):.1f}"


def cause_of(error: BaseException) -> str:
    """The first worker's own words, without Ray's traceback."""
    failures = getattr(error, "worker_failures", None) or {}
    inner: BaseException = next(iter(failures.values()), error)
    inner = getattr(inner, "cause", None) or inner
    lines = [line for line in str(inner).strip().splitlines() if line.strip()] or [type(inner).__name__]
    return f"{type(inner).__name__}: {lines[-1].strip()}"[:500]


def logs_folder() -> str:
    """Where Ray writes what its workers say."""
    return str(Path(_session_folder(), "logs"))


def _session_folder() -> str:
    import ray

    node = ray._private.worker.global_worker.node
    return str(node.get_session_dir_path()) if node else "the Ray session's folder"
