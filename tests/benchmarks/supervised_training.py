"""Supervised tokens per second beside TRL's SFTTrainer: the same base, examples, batches and steps, in one run.

`python -m tests.benchmarks.supervised_training --peers PYTHON [--examples 192] [--rounds 3]` prints lines of JSON.
PYTHON is an interpreter with `requirements-benchmarks.lock`. Docstrings of the standard library, LoRA of rank 16 on
all linear layers, one pass in batches of eight examples; one process of each after another, `rounds` times. The
validation loss is that of the same tokens for all.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.connect import ROOT, prepare_environment

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCH = 8
LONGEST = 512
THEIRS: dict[str, dict[str, Any]] = {
    "defaults": {"per_device_train_batch_size": BATCH},
    "grouped by length, bf16 adapters": {
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "group_by_length",
        "gradient_checkpointing": False,
        "bf16_adapters": True,
    },
    # Two sequences of 512 hold about eight examples.
    "packed, bf16 adapters": {
        "per_device_train_batch_size": 2,
        "packing": True,
        "gradient_checkpointing": False,
        "bf16_adapters": True,
    },
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--examples", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_environment()
    if options.ours:
        print(json.dumps(train_ours(json.loads(options.ours.read_text()))))
        return
    with tempfile.TemporaryDirectory(prefix="sluice-training-") as folder:
        beside(Path(folder), options)


def beside(folder: Path, options: argparse.Namespace) -> None:
    """Run each in turn; a line for each run, then the medians and ratios."""
    wanted = task(folder, options.examples)
    ours = [sys.executable, "-m", "tests.benchmarks.supervised_training", "--ours"]
    theirs = [options.peers, ROOT / "tests" / "benchmarks" / "peers" / "supervised_training.py"]
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for name, changes in {"sluice": None, **(THEIRS if options.peers else {})}.items():
            given = wanted | {"folder": str(folder / "output")}
            if changes is not None:
                # As many steps as one pass takes: of examples, or of packed sequences.
                count = -(-wanted["tokens"] // LONGEST) if changes.get("packing") else len(wanted["train"])
                given |= {"options": changes, "steps": -(-count // changes["per_device_train_batch_size"])}
            note = folder / "task.json"
            note.write_text(json.dumps(given))
            done = subprocess.run([*(ours if changes is None else theirs), note], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr.strip()[-2000:]}")
            found = json.loads(done.stdout.strip().splitlines()[-1])
            share = (given["steps"] - 1) / given["steps"]
            found["supervised_tokens_per_second"] = wanted["supervised_tokens"] * share / found["seconds"]
            runs.setdefault(name, []).append(found)
            print(json.dumps({"who": name} | {key: round(value, 3) for key, value in found.items()}), flush=True)
    for name, found in runs.items():
        pairs = [
            mine["supervised_tokens_per_second"] / other["supervised_tokens_per_second"]
            for mine, other in zip(runs["sluice"], found, strict=True)
        ]
        print(json.dumps({"who": name, "sluice_is_times_as_fast": round(statistics.median(pairs), 2)}), flush=True)


def task(folder: Path, examples: int) -> dict[str, Any]:
    """What all of them are given: the first docstrings of each side, and the validation side's tokens and masks."""
    from cluster.settings import Settings
    from pipelines.data.chat import encode
    from pipelines.data.versioned.table import read_side
    from pipelines.models.load import find_base, load_tokenizer
    from pipelines.models.precision import arithmetic
    from pipelines.progress import Progress
    from pipelines.recipe import BaseModelChoice
    from pipelines.recipe_file import load_recipe
    from pipelines.stages import load_stage
    from pipelines.workspace import Workspace

    here = Settings.from_environment()
    settings = Settings(str(folder), f"sqlite:///{folder}/s.db", f"sqlite:///{folder}/m.db", here.models, None)
    workspace, recipe = Workspace(settings), load_recipe(ROOT / "pipelines" / "recipes" / "demo.yaml")
    for stage in ("audit", "split"):
        report = load_stage(stage).perform(recipe, workspace, Progress(quiet=True))
    base = find_base(BaseModelChoice(base=BASE), here).folder
    tokenizer = load_tokenizer(base)
    sides: dict[str, list[list[dict[str, str]]]] = {}
    for side, count in (("train", examples), ("validation", 64)):
        sides[side] = [json.loads(text) for text in read_side(report, side)["messages"].to_pylist()[:count]]
    encoded = [encode(tokenizer, messages) for messages in sides["train"]]
    return {
        "base": str(base),
        "dtype": arithmetic("auto", "cpu"),
        "seed": 17,
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 5e-4,
        "max_length": LONGEST,
        "steps": -(-examples // BATCH),
        "tokens": sum(len(one.tokens) for one in encoded),
        "supervised_tokens": sum(sum(one.supervised) for one in encoded),
        "train": [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in sides["train"]],
        "validation": [
            {"tokens": one.tokens, "supervised": [int(wanted) for wanted in one.supervised]}
            for one in (encode(tokenizer, messages) for messages in sides["validation"])
        ],
        "validation_messages": sides["validation"],
    }


def train_ours(wanted: dict[str, Any]) -> dict[str, float]:
    """Sluice's own loop with its DeepSpeed engine, as a worker runs it."""
    from pipelines.progress import Progress
    from pipelines.recipe import Train
    from pipelines.training import worker
    from pipelines.training.job import Job
    from pipelines.training.schedule import plan_steps
    from pipelines.training.stored_bins import store_bins
    from pipelines.workspace import Workspace
    from tests.benchmarks.sweep import join_alone
    from tests.pipelines.training.on_disk import on_disk

    train = Train(
        learning_rate=wanted["learning_rate"],
        num_train_epochs=1,
        global_batch_size=BATCH,
        per_device_train_batch_size=BATCH,
        max_length=wanted["max_length"],
        packing=False,
        lr_scheduler_type="constant",
        warmup_steps=0,
        lora_r=wanted["lora_r"],
        lora_alpha=wanted["lora_alpha"],
        eval_steps=wanted["steps"],
    )
    rows = {
        "train": [(f"t{i}", json.dumps([*row["prompt"], *row["completion"]])) for i, row in enumerate(wanted["train"])],
        "validation": [(f"v{i}", json.dumps(messages)) for i, messages in enumerate(wanted["validation_messages"])],
    }
    workspace = Workspace(replace(Workspace().settings, storage=wanted["folder"]))
    stored = store_bins(workspace, "0" * 12, Path(wanted["base"]), on_disk(**rows), train, Progress(quiet=True))
    job = Job(
        train=train.model_dump(mode="json"),
        seed=wanted["seed"],
        plan=plan_steps(train, stored.train.bins),
        base={"name": BASE, "revision": None, "folder": wanted["base"], "fingerprint": "benchmark"},
        bins=stored.address,
    )
    join_alone()
    with ExitStack() as closing:
        loop = Timed(worker.Loop(job, 0, 1, closing, None, None))
        outcome = loop.run()
    return {
        "seconds": sum(loop.seconds[1:]),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "validation_loss": outcome["last_validation_loss"],
    }


class Timed:
    """A loop whose steps are timed."""

    def __init__(self, loop: Any) -> None:
        import time

        self.seconds: list[float] = []
        self._loop, step = loop, loop._step

        def timed() -> bool:
            started = time.perf_counter()
            asked = bool(step())
            self.seconds.append(time.perf_counter() - started)
            return asked

        loop._step = timed

    def run(self) -> dict[str, Any]:
        """The loop's outcome."""
        return dict(self._loop.run())


if __name__ == "__main__":
    main()
