"""What a training step costs on this machine: tokens per second, and what DeepSpeed and the loop add.

    python -m tests.benchmarks.training_step [--model OWNER/NAME] [--steps 3]

Random conversations of the demonstration's shape (a fifth of the tokens is answer), LoRA of rank 16 in bfloat16.
`bare` is forward, backward and AdamW by hand with logits at every place; `supervised` computes them only where a
token is supervised; `engine` adds DeepSpeed.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_bins(length: int, count: int, vocabulary: int) -> list[Any]:
    """Rows of four examples each, a fifth of every example supervised."""
    from pipelines.training.bins import Bin

    draw = random.Random(0)
    part = length // 4
    mask = ([0] * (part - part // 5) + [1] * (part // 5)) * 4
    return [
        Bin([draw.randrange(3, vocabulary) for _ in range(4 * part)], mask, [part] * 4, [str(number)])
        for number in range(count)
    ]


def timed(step: Callable[[], None], steps: int) -> float:
    """Median seconds of a step, after one to warm up."""
    step()
    spent = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()

    from cluster.connect import prepare_environment

    prepare_environment()
    import torch

    from cluster.settings import Settings
    from pipelines.models.load import find_base
    from pipelines.recipe import BaseModelChoice, Train
    from pipelines.training.engine import build_model, prepare_process, start_engine
    from pipelines.training.losses import Batch
    from tests.benchmarks.sweep import join_alone

    folder = find_base(BaseModelChoice(base=options.model), Settings.from_environment()).folder
    join_alone()
    prepare_process("cpu", 0)
    print(f"{options.model}, LoRA r 16, bfloat16, {torch.get_num_threads()} threads; tokens/s (seconds a step)")
    for length, width, passes in ((512, 1, 4), (512, 4, 1), (256, 4, 2)):
        train = Train(
            per_device_train_batch_size=width, global_batch_size=width * passes, max_length=length, dtype="bfloat16"
        )
        module = build_model(train, Path(folder), 0)
        rows = make_bins(length, width, module.model.config.vocab_size)
        batch = Batch.of(rows)
        tokens = width * passes * length
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])

        def whole(module: Any = module, batch: Any = batch) -> Any:
            logits = module.model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits
            wanted = batch.targets[:, 1:]
            return torch.nn.functional.cross_entropy(
                logits[:, :-1].float()[wanted], batch.tokens[:, 1:][wanted], reduction="sum"
            )

        def supervised(module: Any = module, batch: Any = batch) -> Any:
            return module(batch.tokens, batch.positions, batch.targets, batch.ends)

        def by_hand(loss: Callable[[], Any], passes: int = passes, optimizer: Any = optimizer) -> None:
            for _ in range(passes):
                (loss() / 100).backward()
            optimizer.step()
            optimizer.zero_grad()

        found = {
            "bare": timed(lambda: by_hand(whole), options.steps),
            "supervised": timed(lambda: by_hand(supervised), options.steps),
        }
        engine = start_engine(module, train, 1)

        def engine_step(engine: Any = engine, batch: Any = batch, passes: int = passes) -> None:
            for _ in range(passes):
                engine.backward(
                    engine(batch.tokens, batch.positions, batch.targets, batch.ends) / 100, scale_wrt_gas=False
                )
                engine.step()

        found["engine"] = timed(engine_step, options.steps)
        shown = "  ".join(f"{name} {tokens / seconds:.0f} ({seconds:.2f})" for name, seconds in found.items())
        print(f"{passes} x {width} x {length}: {shown}")


if __name__ == "__main__":
    main()
