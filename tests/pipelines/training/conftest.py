"""Hand-made conversations, their stored bins, and the loop in this process."""

import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.data.spool import Spool, SpoolWriter
from pipelines.progress import Progress
from pipelines.recipe import Train
from pipelines.training.encoding import encode_block, encoded_schema
from pipelines.training.schedule import plan_steps
from pipelines.training.stored_bins import store_bins, write_bins
from tests.pipelines.training.on_disk import batch_of, on_disk
from tests.pipelines.training.workers import run_here

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


def preferences(count, seed=0):
    """(id, messages, rejected) rows: of two words the one that was named first is preferred."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        first, second = draw.sample(WORDS[20:], 2)
        messages = [
            {"role": "user", "content": f"Take one: {first} or {second}"},
            {"role": "assistant", "content": "the first" if number % 2 else "here, the first"},
        ]
        rows.append((f"pair-{number:04d}", json.dumps(messages), json.dumps("the second, I would say")))
    return rows


def build_bins(tokenizer, rows, train):
    """(bins as a table, what became of the examples, the first one shown) of rows in their order."""
    block = encode_block(tokenizer, batch_of(rows), train)
    with tempfile.TemporaryDirectory() as folder:
        examples, bins = Path(folder, "examples"), Path(folder, "bins")
        with SpoolWriter(examples, encoded_schema()) as writer:
            writer.add(block.examples)
        packed = train.packing and not block.figures.seq2seq
        block.figures.bins = write_bins(Spool(examples), bins, train, packed=packed)
        return pa.ipc.open_file(bins.read_bytes()).read_all(), block.figures, block.shown


@pytest.fixture
def run():
    """`run(job, stop_at=None)` -> (outcome, listener): the loop in this process."""
    return lambda job, stop_at=None: run_here(job, 0, 1, stop_at)


@pytest.fixture
def make_job(workspace, tiny_model):
    """`make_job(name, train={...}, rows=..., **job)` -> a Job over the tiny model with its bins stored."""
    return job_maker(workspace, tiny_model)


def job_maker(workspace, model):
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
        stored = store_bins(workspace, f"{name:0<12}", model, on_disk(**sides), settings, Progress(quiet=True))
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


def loss_of_export(job, folder):
    """The validation loss of what went out, loaded as a server would."""
    import torch
    from peft import PeftModel

    from pipelines.models.load import load_causal_lm
    from pipelines.training.bins import BinFile
    from pipelines.training.losses import Batch, SupervisedLoss
    from pipelines.workspace import Workspace

    base = load_causal_lm(job.base["folder"], "float32")
    model = (
        PeftModel.from_pretrained(base, folder) if job.train["method"] == "lora" else load_causal_lm(folder, "float32")
    )
    model.eval()
    side = BinFile(Workspace().fetch(job.bins) / "validation.arrow")
    with torch.no_grad():
        total = 0.0
        for number in range(len(side)):
            batch = Batch.of([side.read(number)])
            total += float(SupervisedLoss(model)(batch.tokens, batch.positions, batch.targets, batch.ends))
    return total / sum(side.taught)
