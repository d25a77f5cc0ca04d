"""kill -9 of workers and of the driver: the run goes on, learns from each example once and ends where it would have."""

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipelines.progress import Progress
from pipelines.training.bins import BinFile
from pipelines.training.checkpoints import CheckpointStore
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
    return lambda name: job_maker(ray_cluster, tiny_model)(name, SETTINGS, rows)


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


def check(job, outcome, uninterrupted, workspace):
    for figure in ("last_validation_loss", "last_train_loss", "supervised_tokens"):
        assert outcome[figure] == pytest.approx(uninterrupted[figure], rel=1e-4)
    assert (outcome["least_visits"], outcome["most_visits"]) == (1, 1)
    # The committed steps, as the workers read them.
    store = CheckpointStore(job.checkpoints)
    timeline = Timeline.read(store.fetch(max(store.complete()), Path()))
    side = BinFile(workspace.fetch(job.bins) / "train.arrow")
    seen = Counter(example for step in timeline for number in step for example in side.read(number).ids)
    assert len(timeline) == job.plan.steps == 150
    assert seen == Counter(f"example-{number:04d}" for number in range(EXAMPLES))


def test_workers_killed_mid_epoch_cost_nothing_but_time(make, ray_cluster, uninterrupted):
    job, killed, started, resumed = make("workers-killed"), [], [], []

    def on_event(event):
        if event["kind"] == "started":
            started.append(event["pid"])
        if event["kind"] == "resumed":
            resumed.append(event["step"])
        # One of the two each time, after a checkpoint and before the next.
        running = len(killed) < 2 and len(started) == len(killed) + 1
        if running and event["kind"] == "step" and event["step"] > (20, 70)[len(killed)]:
            victim = started[-1] if killed else other_worker(started[-1])
            killed.append(victim)
            os.kill(victim, signal.SIGKILL)

    outcome = run(job, ray_cluster, "workers-killed", on_event)

    assert len(killed) == len(resumed) == 2
    assert 15 <= resumed[0] < 150 and 60 <= resumed[1] < 150
    check(job, outcome, uninterrupted, ray_cluster)


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
