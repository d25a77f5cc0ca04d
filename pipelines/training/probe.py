"""The largest batch that fits: found by trying on the device, and remembered for the same work on the same machine."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from cluster.errors import UserError
from pipelines.fingerprint import fingerprint, short
from pipelines.recipe import Train
from pipelines.training.bins import Bin, BinFile
from pipelines.training.engine import start_engine
from pipelines.training.objectives import Objective
from pipelines.training.together import highest, shared
from pipelines.workspace import Workspace

PROBE_VERSION = 1
MARGIN = 0.8
"""Share of the memory that is free before the first pass that passes may take: the rest is for what the probe does
not see (fragments, validation, checkpoints, other processes)."""
SAMPLE_S = 0.005
WITHOUT_WEIGHT = {
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "lora_alpha",
    "eval_steps",
    "early_stopping_patience",
    "early_stopping_threshold",
    "divergence_factor",
    "divergence_steps",
    "max_hours",
    "max_cost",
}
"""Keys of train that take no memory: a trial with another rate need not try again."""


@dataclass(frozen=True)
class Tried:
    """Passes of one width."""

    sequences: int
    """In a forward and backward pass of a worker."""
    tokens_per_second: float
    """Of all workers."""
    memory_bytes: int
    """By which memory grew, on the worker where it grew most."""


@dataclass(frozen=True)
class Found:
    """What the tries came to."""

    sequences: int
    because: str
    """Why no more."""
    tried: tuple[Tried, ...]
    remembered: bool = False


def predicted(tried: list[Tried]) -> int:
    """Memory that twice the last width would take: a line through the last two, or twice the only one."""
    last = tried[-1].memory_bytes
    if len(tried) == 1:
        return 2 * last
    return max(last, last + 2 * (last - tried[-2].memory_bytes))


def largest(measure: Callable[[int], Tried | None], most: int, available: int) -> Found:
    """The largest power of two up to `most` that fits and is no slower than half of it.

    `measure` tries a width, and returns None when memory did not do; `available` is in bytes. A width that would by
    the smaller ones take more than the margin leaves is not tried. Raises UserError when one sequence does not fit.
    """
    tried: list[Tried] = []
    width = 1
    while True:
        found = measure(width)
        if found is None:
            if not tried:
                raise UserError(
                    "Not even one sequence of train.max_length fits the device's memory.",
                    "Lower train.max_length, set train.gradient_checkpointing: true, or shard with train.deepspeed.",
                )
            return Found(width // 2, f"{width} did not fit the device's memory", tuple(tried))
        if tried and found.tokens_per_second < tried[-1].tokens_per_second:
            slower = f"{width} gave {found.tokens_per_second:.0f} tokens/s instead of {tried[-1].tokens_per_second:.0f}"
            return Found(width // 2, slower, (*tried, found))
        tried.append(found)
        if 2 * width > most:
            return Found(width, "more than one step's share of the global batch is never needed", tuple(tried))
        need = predicted(tried)
        if need > MARGIN * available:
            short_of = f"{2 * width} would take {need / 1e9:.2f} GB; {MARGIN:.0%} of {available / 1e9:.2f} GB may be"
            return Found(width, short_of, tuple(tried))
        width *= 2


def found_batch(
    module: torch.nn.Module,
    train: Train,
    objective: Objective,
    side: BinFile,
    workspace: Workspace,
    *,
    base: str,
    device: "torch.device | str",
    available: int | None,
    disk: Path | None = None,
) -> Found:
    """How many sequences of a side fit into a pass of each worker: known from before, or found by `probe`.

    All workers call it together. `base`: the base's fingerprint; `disk`: see `start_engine`. `module` is used up
    unless the answer was remembered.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    key = probe_key(base, train, side, world, device)
    known = shared(recall(workspace, key) if rank == 0 else None)
    if known is not None:
        return known
    found = probe(module, train, objective, side, device, available, disk)
    if rank == 0:
        remember(workspace, key, found)
    return found


def probe(
    module: torch.nn.Module,
    train: Train,
    objective: Objective,
    side: BinFile,
    device: "torch.device | str",
    available: int | None,
    disk: Path | None = None,
) -> Found:
    """Try on the device; all workers together, and they agree. `module` is used up: train another.

    Every try is two passes at the length of the longest sequence, with gradients and an optimiser step at a rate
    of 0. `available`: bytes that may be taken instead of what is measured to be free. Where ZeRO-3 gathers parameters
    from all workers, an out-of-memory error of a single one would leave the others waiting: the prediction keeps all
    of them from it.
    """
    row, world = heaviest(side), dist.get_world_size()
    narrow = train.model_copy(update={"global_batch_size": 2 * world, "per_device_train_batch_size": 1})
    engine = start_engine(module, narrow, world, disk)
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    free = free_bytes(device) if available is None else available
    agreed_free = -highest(-free, device)
    memory = Growth(device)

    def passes(width: int) -> float:
        fastest = float("inf")
        for _ in range(2):
            started = time.monotonic()
            loss = objective.tried(engine, row, width)
            engine.backward(loss / len(row.tokens), scale_wrt_gas=False)
            float(loss.detach())
            fastest = min(fastest, time.monotonic() - started)
            engine.step()
        return fastest

    def measure(width: int) -> Tried | None:
        seconds = 0.0
        with memory:
            try:
                if width == 1:
                    # The very first pass is slow for reasons of its own.
                    passes(1)
                seconds = passes(width)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        if highest(int(seconds == 0.0), device):
            return None
        slowest = highest(round(seconds * 1e6), device) / 1e6
        return Tried(width, world * width * len(row.tokens) / slowest, highest(memory.bytes, device))

    found = largest(measure, max(1, train.global_batch_size // world), agreed_free)
    engine.destroy()
    return found


def heaviest(side: BinFile) -> Bin:
    """As long as the longest bin, and teaching as much as the one that teaches most: no pass of training takes more."""
    tokens = side.read(max(range(len(side)), key=side.sizes.__getitem__)).tokens
    taught = min(max(side.taught), len(tokens) - 1)
    return Bin(tokens, [0] * (len(tokens) - taught) + [1] * taught, [len(tokens)], [])


class Growth:
    """By how much this process's memory (its GPU's, where there is one) grew at most since the beginning."""

    def __init__(self, device: "torch.device | str") -> None:
        self._gpu = isinstance(device, torch.device) and device.type == "cuda"
        self._device = device
        self._process = psutil.Process()
        self._begin = torch.cuda.memory_allocated(device) if self._gpu else self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.bytes = 0

    def __enter__(self) -> "Growth":
        if self._gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
            return self
        self._ended.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gpu:
            self.bytes = max(self.bytes, torch.cuda.max_memory_allocated(self._device) - self._begin)
        elif self._thread:
            self._ended.set()
            self._thread.join()

    def _sample(self) -> None:
        # The kernel's own peak is of the process's whole life, loading the model included.
        while not self._ended.wait(SAMPLE_S):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._begin)


def free_bytes(device: "torch.device | str") -> int:
    """Memory that this worker may still take: of its GPU, or its share of the machine's (or container's)."""
    if isinstance(device, torch.device) and device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    # No such files, or "max" in them: no limit but the machine's.
    with suppress(OSError, ValueError):
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return int(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def probe_key(base: str, train: Train, side: BinFile, world: int, device: "torch.device | str") -> str:
    """Fingerprint of what the largest batch depends on."""
    if isinstance(device, torch.device) and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine: list[Any] = [properties.name, properties.total_memory >> 30]
    else:
        machine = ["cpu", torch.get_num_threads(), psutil.virtual_memory().total >> 30]
    settings = {key: value for key, value in train.learnt_from().items() if key not in WITHOUT_WEIGHT}
    return fingerprint("probe", PROBE_VERSION, base, settings, max(side.sizes), max(side.taught), world, machine)


def recall(workspace: Workspace, key: str) -> Found | None:
    """What was found before."""
    try:
        noted = json.loads((workspace.fetch(_address(workspace, key)) / "found.json").read_text(encoding="utf-8"))
        tried = tuple(Tried(**entry) for entry in noted["tried"])
        return Found(noted["sequences"], noted["because"], tried, remembered=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(workspace: Workspace, key: str, found: Found) -> None:
    """Keep what was found for the next run."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "found.json").write_text(json.dumps(asdict(found)), encoding="utf-8")
        workspace.keep(Path(scratch), "probes", short(key))


def _address(workspace: Workspace, key: str) -> str:
    return workspace.uri("probes", short(key))
