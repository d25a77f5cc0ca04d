"""kill -9 of workers and of the driver: the run goes on, learns from each example once and ends where it would have."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipelines.progress import Progress
from pipelines.training.bins import BinFile
from pipelines.training.checkpoints import UNFINISHED, CheckpointStore
from pipelines.training.timeline import Timeline
from tests.pipelines.training.conftest import conversations, job_maker

pytestmark = [pytest.mark.cluster, pytest.mark.drill]

EXAMPLES = 600
SETTINGS = {
    "packing": False,
    "num_train_epochs": 1,
    "global_batch_size": 4,
    "eval_steps": 15,
    "learning_rate": 1e-3,
    "lora_dropout": 0.1,
    "deepspeed": {"stage": 2},
}


@pytest.fixture(scope="module")
def make(ray_cluster, tiny_model):
    """`make(name) -> Job`: an epoch of 150 steps over the same examples."""
    rows = {"train": conversations(EXAMPLES), "validation": conversations(8, seed=1)}
    return lambda name, **settings: job_maker(ray_cluster, tiny_model)(name, SETTINGS | settings, rows)


@pytest.fixture(scope="module")
def uninterrupted(make, ray_cluster):
    return run(make("uninterrupted"), ray_cluster, "uninterrupted")


def place():
    from pipelines.training.trainer import Place

    return Place(num_workers=2, use_gpu=False, accelerator_type=None, cpus_per_worker=1.0)


def run(job, workspace, name, on_event=lambda event: None):
    from pipelines.training.trainer import fit

    return fit(job, place(), name, workspace, Progress(quiet=True), on_event)


def other_worker(pid):
    """The worker beside this one."""
    siblings = psutil.Process(pid).parent().children()
    return next(p.pid for p in siblings if "RayTrainWorker" in " ".join(p.cmdline()) and p.pid != pid)


FIGURES = ("last_validation_loss", "last_train_loss", "supervised_tokens")


def check(job, outcome, uninterrupted, workspace, figures=FIGURES):
    for figure in figures:
        assert outcome[figure] == pytest.approx(uninterrupted[figure], rel=1e-4)
    assert (outcome["least_visits"], outcome["most_visits"]) == (1, 1)
    # The committed steps, as the workers read them.
    store = CheckpointStore(job.checkpoints)
    timeline = Timeline.read(store.fetch(max(store.complete()), Path()))
    side = BinFile(workspace.fetch(job.bins) / "train.arrow")
    seen = Counter(example for step in timeline for number in step for example in side.read(number).ids)
    assert len(timeline) == job.plan.steps == 150
    assert seen == Counter(f"example-{number:04d}" for number in range(EXAMPLES))


class SaveKiller(threading.Thread):
    """kill -9 of one of two workers at a random point of its part of a checkpoint, so many times."""

    def __init__(self, store, times):
        super().__init__(daemon=True)
        self._store, self._times, self._draw = store, times, random.Random(7)
        self.started, self.cut_off, self.over = [], [], threading.Event()

    def run(self):
        used = 0
        while len(self.cut_off) < self._times and not self.over.wait(0.0005):
            rank = len(self.cut_off) % 2
            # Each pair of workers loses one.
            if len(self.started) > used and (step := self._writing(rank)):
                # It may have ended by itself: then the next save is tried.
                with suppress(ProcessLookupError, StopIteration, psutil.NoSuchProcess):
                    used = len(self.started) if self._cut_off(rank, step) else used

    def _cut_off(self, rank, step):
        """Kill the worker that writes the step's files, unless it has written them meanwhile; whether it was killed."""
        first = self.started[-1]
        victim = other_worker(first) if rank else first
        # At once, then on in small steps: a save takes milliseconds, and a busy machine sleeps longer than asked to.
        os.kill(victim, signal.SIGSTOP)
        for _ in range(self._draw.randrange(6)):
            os.kill(victim, signal.SIGCONT)
            time.sleep(0.0005)
            os.kill(victim, signal.SIGSTOP)
        # With a checkpoint before it, to go on from.
        if self._writing(rank) != step or not self._store.complete():
            os.kill(victim, signal.SIGCONT)
            return False
        self.cut_off.append(step)
        os.kill(victim, signal.SIGKILL)
        return True

    def _writing(self, rank):
        """The step whose files this worker is about to keep: begun, and without its manifest; 0 when there is none."""
        root = Path(self._store.address)
        begun = [path.name.rpartition("-")[0] for path in root.glob(f"{UNFINISHED}/step-*-{rank}")]
        missing = [name for name in begun if not (root / name / f"manifest-{rank}.json").exists()]
        return int(missing[0].removeprefix("step-")) if missing else 0


def test_workers_killed_inside_two_saves_and_between_two_cost_nothing_but_time(make, ray_cluster, uninterrupted):
    # Thirty saves, to hit two of them.
    job, resumed, between = make("workers-killed", eval_steps=5), [], []
    killer = SaveKiller(CheckpointStore(job.checkpoints), times=2)
    killer.start()

    def on_event(event):
        if event["kind"] == "started":
            killer.started.append(event["pid"])
        if event["kind"] == "resumed":
            resumed.append(event["step"])
        # The third time mid-epoch, when steps are lost that no save had begun to keep.
        if event["kind"] == "step" and len(resumed) == 2 and not between and event["step"] % 5 in (2, 3):
            between.append(event["step"])
            os.kill(other_worker(killer.started[-1]), signal.SIGKILL)

    outcome = run(job, ray_cluster, "workers-killed", on_event)
    killer.over.set()
    killer.join()

    # Each time the run goes on from before what was cut off.
    lost = killer.cut_off + between
    assert len(lost) == len(resumed) == 3
    assert all(0 < step < end for step, end in zip(resumed[:2], killer.cut_off, strict=True))
    assert 0 < resumed[2] < 150
    # The training loss is a mean since the validation before, and here there are more of them.
    check(job, outcome, uninterrupted, ray_cluster, ("last_validation_loss", "supervised_tokens"))


def test_a_killed_driver_is_run_again_and_goes_on(make, ray_cluster, uninterrupted, tmp_path):
    import ray

    job, resumed = make("driver"), []
    (tmp_path / "job").write_bytes(pickle.dumps((job, place(), "driver")))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.drills.driver", str(tmp_path / "job")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        for line in driver.stdout:
            if line.startswith("step ") and int(line.split()[1]) > 40:
                break
        driver.kill()

    outcome = run(
        job, ray_cluster, "driver", lambda event: event["kind"] == "resumed" and resumed.append(event["step"])
    )

    assert len(resumed) == 1 and 30 <= resumed[0] < 150
    check(job, outcome, uninterrupted, ray_cluster)
