"""Hand-made conversations, their stored bins, and the loop in this process."""

import json
import random

import pytest

from pipelines.progress import Progress
from pipelines.recipe import Train
from pipelines.training.bins import store_bins
from pipelines.training.schedule import plan_steps

WORDS = [*map(str, range(100, 120)), "list", "map", "tree", "graph", "node", "edge", "path", "file", "line", "word"]


def conversations(count, seed=0, low=3, high=12):
    """(id, messages as JSON) rows whose answer repeats the prompt's first words: something that can be learnt."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(WORDS, k=draw.randint(low, high))
        messages = [
            {"role": "user", "content": "Summarise: " + " ".join(words)},
            {"role": "assistant", "content": " ".join(words[:2])},
        ]
        rows.append((f"example-{number:04d}", json.dumps(messages)))
    return rows


@pytest.fixture
def make_job(workspace, tiny_model):
    """`make_job(name, train={...}, rows=..., **job)` -> a Job over the tiny model with its bins stored."""
    return job_maker(workspace, tiny_model)


def job_maker(workspace, model):
    from pipelines.models.load import load_tokenizer
    from pipelines.training.job import Job

    def make(name="run", train=None, rows=None, **options):
        settings = Train.model_validate(
            {
                "learning_rate": 1e-2,
                "global_batch_size": 8,
                "max_length": 128,
                "dtype": "float32",
                "num_train_epochs": 2,
                "lora_r": 4,
                "eval_steps": 0.5,
                "early_stopping_patience": 100,
            }
            | (train or {})
        )
        sides = rows or {"train": conversations(64), "validation": conversations(16, seed=1)}
        stored = store_bins(
            workspace, f"{name:0<12}", lambda: load_tokenizer(model), lambda: sides, settings, Progress(quiet=True)
        )
        values = {
            "train": settings.model_dump(mode="json"),
            "seed": 3,
            "plan": plan_steps(settings, stored.train.bins),
            "base": {"name": "tiny", "revision": None, "folder": str(model), "fingerprint": "tiny"},
            "bins": stored.address,
            "checkpoints": workspace.uri("runs", name),
            "model": ("models", name),
        }
        return Job(**(values | options))

    return make


@pytest.fixture(scope="session")
def process_group(tmp_path_factory):
    """This process as the only worker."""
    import os

    from cluster.connect import prepare_environment

    prepare_environment()
    import torch.distributed as dist

    os.environ.setdefault("LOCAL_RANK", "0")
    place = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Remote:
    def __init__(self, call):
        self.remote = call


class Listener:
    """A mailbox in this process."""

    def __init__(self):
        self.events = []
        self.put = Remote(self.events.append)

    def of(self, kind, value="step"):
        return [event[value] for event in self.events if event["kind"] == kind]


@pytest.fixture
def run(monkeypatch):
    from pipelines.training import worker

    def go(job, stop_at=None):
        heard = Listener()
        monkeypatch.setattr(
            worker.Loop, "_stop_asked", lambda loop: stop_at is not None and loop.state.step + 1 == stop_at
        )
        return worker.run_loop(job, rank=0, world=1, mailbox=heard), heard

    return go
