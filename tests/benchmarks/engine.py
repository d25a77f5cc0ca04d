"""The embedded engine: its throughput, its first tokens, and what many adapters over one base cost.

    python -m tests.benchmarks.engine [--requests 16] [--tokens 48] [--rounds 5]

SmolLM2-135M, so many requests at once, in one process and rounds that alternate; every answer has all of its tokens.
Beside plain batched `generate` on the same prompts; adapters of rank 16 over all linear layers. A first token is timed
alone, and of a request that comes while all others but one are being answered. Memory is a fresh process's own, after
it has answered: one adapter over the base, three over one base, three engines with a base each. Lines of JSON, medians
of the rounds and the range of the rounds' ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

if TYPE_CHECKING:
    from pipelines.engines.protocol import Chunk
    from pipelines.engines.transformers import TransformersEngine

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPT = "Write one sentence that says what number {} means to a reader of old clocks, and why."
ADAPTERS = ("first", "second", "third")


def base_folder() -> Path:
    """Where the base is on this machine."""
    from cluster.settings import Settings
    from pipelines.models.load import find_base
    from pipelines.recipe import BaseModelChoice

    return find_base(BaseModelChoice(base=BASE), Settings.from_environment()).folder


def make_adapters(folder: Path) -> None:
    """Three adapters that each change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipelines.models.load import load_causal_lm

    for seed, name in enumerate(ADAPTERS):
        torch.manual_seed(seed)
        model = get_peft_model(load_causal_lm(base_folder()), LoraConfig(r=16, target_modules="all-linear"))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(folder / name)


def prompts(count: int) -> list[list[int]]:
    """Conversations of one short question each, as token ids."""
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(base_folder())
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT.format(number)}], add_generation_prompt=True, return_dict=False
        )
        for number in range(count)
    ]


def engine_of(adapters: Path | None, names: Sequence[str], at_once: int) -> "TransformersEngine":
    """An engine over a base of its own that never ends an answer early."""
    from pipelines.engines.transformers import TransformersEngine

    folders = {name: adapters / name for name in names} if adapters else {}
    engine = TransformersEngine(base_folder(), folders, max_batch_size=at_once)
    engine._end_tokens = frozenset()
    return engine


class Asking:
    """Requests under way at engines: when each had its first token, and when all had ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.tokens, self.ended, self.first = 0, 0, list[float]()

    def ask(self, engine: "TransformersEngine", prompt: Sequence[int], adapter: str | None, tokens: int) -> None:
        """Hand one request over."""
        from pipelines.engines.protocol import GenerationRequest

        asked, begun = time.monotonic(), False

        def deliver(chunk: "Chunk") -> None:
            nonlocal begun
            with self._changed:
                if chunk.tokens and not begun:
                    begun = True
                    self.first.append(time.monotonic() - asked)
                self.tokens += chunk.tokens
                self.ended += chunk.finish_reason is not None
                self._changed.notify_all()

        engine.submit(GenerationRequest(tuple(prompt), adapter, tokens), deliver)

    def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds."""
        with self._changed:
            self._changed.wait_for(condition)


def answered(each: Sequence[tuple["TransformersEngine", str | None]], asked: list[list[int]], tokens: int) -> int:
    """Tokens of the answers, all asked at once, in turn by each pair of engine and adapter."""
    asking = Asking()
    for number, prompt in enumerate(asked):
        engine, adapter = each[number % len(each)]
        asking.ask(engine, prompt, adapter, tokens)
    asking.until(lambda: asking.ended == len(asked))
    return asking.tokens


def first_token_alone(engine: "TransformersEngine", prompt: list[int]) -> float:
    """Seconds to the first token of the only request."""
    asking = Asking()
    asking.ask(engine, prompt, None, 2)
    asking.until(lambda: asking.ended == 1)
    return asking.first[0]


def first_token_beside(engine: "TransformersEngine", asked: list[list[int]], tokens: int) -> float:
    """Seconds to the first token of one that comes while the others are answered."""
    others, late = Asking(), Asking()
    for prompt in asked[1:]:
        others.ask(engine, prompt, None, tokens)
    others.until(lambda: len(others.first) == len(asked) - 1)
    late.ask(engine, asked[0], None, 2)
    late.until(lambda: late.ended == 1)
    assert others.ended < len(asked) - 1, "the others had ended before: ask for more tokens"
    others.until(lambda: others.ended == len(asked) - 1)
    return late.first[0]


def measure(options: argparse.Namespace, adapters: Path) -> None:
    """Throughput and first tokens, in this process."""
    import torch

    from pipelines.models.load import load_causal_lm, load_tokenizer

    asked, count = prompts(options.requests), options.requests
    tokenizer = load_tokenizer(base_folder())
    bare, shared = engine_of(None, (), count), engine_of(adapters, ADAPTERS, count)
    separate = [engine_of(adapters, (name,), count) for name in ADAPTERS]
    plain: Any = load_causal_lm(base_folder())
    plain.generation_config.eos_token_id = None

    def by_generate() -> int:
        batch = tokenizer.pad({"input_ids": asked}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = plain.generate(
                **batch, max_new_tokens=options.tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        return int(output.shape[0] * (output.shape[1] - batch["input_ids"].shape[1]))

    def by(*each: tuple["TransformersEngine", str | None]) -> Callable[[], int]:
        return lambda: answered(each, asked, options.tokens)

    cases: dict[str, Callable[[], int]] = {
        "plain generate": by_generate,
        "engine, no adapter loaded": by((bare, None)),
        "three loaded, bare base asked": by((shared, None)),
        "three loaded, one asked": by((shared, ADAPTERS[0])),
        "three loaded, mixed": by(*((shared, name) for name in ADAPTERS)),
        "three models side by side": by(*zip(separate, ADAPTERS, strict=True)),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    first: dict[str, list[float]] = {"alone": [], "beside": []}
    for round_ in range(options.rounds + 1):
        for name, case in cases.items():
            started = time.monotonic()
            tokens = case()
            assert tokens == count * options.tokens, f"{name}: {tokens} tokens"
            if round_:
                rates[name].append(tokens / (time.monotonic() - started))
        times = first_token_alone(bare, asked[0]), first_token_beside(bare, asked, options.tokens)
        if round_:
            first["alone"].append(times[0])
            first["beside"].append(times[1])
    for name in cases:
        say(name, tokens_per_second=rates[name], of_plain=ratios(rates[name], rates["plain generate"]))
    mixed, one = rates["three loaded, mixed"], rates["three loaded, one asked"]
    say("mixed traffic over one adapter's", of_one=ratios(mixed, one))
    say("mixed traffic over three models'", of_three=ratios(mixed, rates["three models side by side"]))
    say("first token", alone_s=first["alone"], beside_s=first["beside"], times=ratios(first["beside"], first["alone"]))


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Of each round its own."""
    return [one / other for one, other in zip(over, under, strict=True)]


def say(case: str, **figures: list[float]) -> None:
    """One line: of each figure the median and the range of the rounds."""
    shown = {
        name: [round(figure(values), 3) for figure in (statistics.median, min, max)] for name, values in figures.items()
    }
    print(json.dumps({"case": case} | shown), flush=True)


def hold(kind: str, adapters: Path, requests: int) -> None:
    """Answer in this process, and print the memory that is its own then (bytes)."""
    import psutil

    names = ADAPTERS if kind != "one" else ADAPTERS[:1]
    if kind == "separate":
        each = [(engine_of(adapters, (name,), requests), name) for name in names]
    else:
        engine = engine_of(adapters, names, requests)
        each = [(engine, name) for name in names]
    answered(each, prompts(requests), 16)
    print(psutil.Process().memory_full_info().uss)


def memory(adapters: Path, requests: int) -> None:
    """Of one adapter, of three over one base, of three models."""
    own = {}
    for kind in ("one", "three", "separate"):
        command = [sys.executable, "-m", "tests.benchmarks.engine", "--hold", kind, "--adapters", str(adapters)]
        command.append(f"--requests={requests}")
        own[kind] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    shown = {f"{kind}_mib": round(size / 2**20) for kind, size in own.items()}
    print(json.dumps({"case": "memory"} | shown | {"three_over_one": round(own["three"] / own["one"], 3)}), flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hold", choices=("one", "three", "separate"), help=argparse.SUPPRESS)
    parser.add_argument("--adapters", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(options.hold, options.adapters, options.requests)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_adapters(Path(folder))
        memory(Path(folder), options.requests)
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
