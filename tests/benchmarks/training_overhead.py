"""What Ray Train and DeepSpeed add to a training step, beside a bare PyTorch loop over the same sequences.

    python -m tests.benchmarks.training_overhead [--model OWNER/NAME] [--steps 12] [--rounds 3]

Conversations of the demonstration's shape, packed into 512 tokens, four a step, LoRA of rank 16 in bfloat16, one
worker. Both take the same forward pass (logits at supervised places alone). `bare` is forward, backward, clipping
and AdamW by hand; `run` is the whole of `sluice train`'s loop in its worker: data order, DeepSpeed, events to the
driver, the meter, the poll for a stop. Seconds from one step's end to the next, medians; the rounds alternate.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

SETTINGS = {
    "global_batch_size": 4,
    "max_length": 512,
    "dtype": "bfloat16",
    "learning_rate": 5e-4,
    "lora_r": 16,
    "num_train_epochs": 1000,
}


def bare(model: Path, bins: Path, steps: int) -> None:
    """Print the median seconds of a step by hand."""
    from cluster.connect import prepare_environment

    prepare_environment()
    import torch

    from pipelines.recipe import Train
    from pipelines.training.bins import BinFile
    from pipelines.training.engine import build_model, prepare_process
    from pipelines.training.losses import Batch

    prepare_process("cpu", 0)
    module, side = build_model(Train.model_validate(SETTINGS), model, 0), BinFile(bins)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4)
    ends = []
    for step in range(steps):
        rows = [side.read((4 * step + number) % len(side)) for number in range(4)]
        supervised = sum(map(sum, (row.supervised for row in rows)))
        for row in rows:
            batch = Batch.of([row])
            loss = module(batch.tokens, batch.positions, batch.targets, batch.ends)
            (loss / supervised).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.monotonic())
    print("SECONDS", statistics.median(late - early for early, late in pairwise(ends[1:])))


def run(model: Path, steps: int, name: str) -> tuple[float, Path]:
    """(median seconds of a step of a training under Ray Train, its bins)."""
    from pipelines.progress import Progress
    from pipelines.training.trainer import Place, fit
    from pipelines.workspace import Workspace
    from tests.pipelines.training import conftest

    workspace = Workspace()
    rows = {"train": conftest.conversations(240, low=60, high=140), "validation": conftest.conversations(4, seed=1)}
    make = conftest.job_maker(workspace, model)
    job = make(name, SETTINGS | {"max_steps": steps, "eval_steps": steps}, rows)
    ends = []
    place = Place(num_workers=1, use_gpu=False, accelerator_type=None, cpus_per_worker=1.0)

    def on_event(event: dict) -> None:
        if event["kind"] == "step":
            ends.append(event["time"])

    fit(job, place, name, workspace, Progress(quiet=True), on_event)
    return (
        statistics.median(late - early for early, late in pairwise(ends[1:])),
        workspace.fetch(job.bins) / "train.arrow",
    )


def main() -> None:
    """Print a line a round, and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", nargs=2, metavar=("MODEL", "BINS"), help="the loop by hand alone, in this process")
    options = parser.parse_args()
    if options.bare:
        bare(Path(options.bare[0]), Path(options.bare[1]), options.steps)
        return
    from cluster.connect import connect
    from cluster.settings import Settings
    from pipelines.models.load import find_base
    from pipelines.recipe import BaseModelChoice

    folder = find_base(BaseModelChoice(base=options.model), Settings.from_environment()).folder
    with tempfile.TemporaryDirectory(prefix="sluice-overhead-") as scratch:
        os.environ["SLUICE_STORAGE"] = scratch
        connect(Settings.from_environment())
        ratios = []
        for number in range(options.rounds):
            whole, bins = run(Path(folder), options.steps, f"round{number}")
            command = [sys.executable, "-m", __spec__.name, "--steps", str(options.steps)]
            told = subprocess.run([*command, "--bare", str(folder), str(bins)], stdout=subprocess.PIPE, text=True)
            told.check_returncode()
            by_hand = float(told.stdout.rpartition("SECONDS")[2])
            ratios.append(whole / by_hand)
            print(f"round {number + 1}: bare {by_hand:.3f} s a step, run {whole:.3f} s: {ratios[-1]:.3f}", flush=True)
        print(f"median of the ratios: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
