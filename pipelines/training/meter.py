"""How much of the device a step uses, and how much memory."""

import resource
import time
from typing import Any

import torch

PEAK_FLOPS = (
    # Dense bfloat16 tensor-core rates of NVIDIA's data sheets (where those give rates with sparsity: half of them).
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
)
"""(part of the device's name, floating-point operations per second); the first that fits."""


def peak_flops(device_name: str, dtype: str) -> float | None:
    """The device's peak in this arithmetic; None where it is not known."""
    if dtype != "bfloat16":
        return None
    return next((flops for part, flops in PEAK_FLOPS if part in device_name), None)


def flops_per_token(total: int, embedding: int, head: int, *, frozen: bool, taught: float) -> float:
    """Operations that training does per token with its weights (Kaplan et al. 2020, section 2.1).

    2 per weight forward, 2 for the gradients of activations, 2 for those of weights, which frozen ones spare. Looking
    up embeddings takes none; the output layer works on the share of supervised tokens (`taught`) alone. Attention
    between tokens is left out, recomputed activations too: the utilisation is a lower bound.
    """
    return (4 if frozen else 6) * (total - embedding - head + head * taught)


class Meter:
    """One worker's use of its device."""

    def __init__(self, model: Any, device: "torch.device | str", dtype: str, *, frozen: bool) -> None:
        self._gpu = isinstance(device, torch.device) and device.type == "cuda"
        self._device, self._frozen = device, frozen
        self._peak = peak_flops(torch.cuda.get_device_name(device), dtype) if self._gpu else None
        # Under ZeRO-3 a worker holds a part of each parameter; DeepSpeed keeps the whole's size.
        counted = {id(p): getattr(p, "ds_numel", p.numel()) for p in model.parameters()}
        self._total = sum(counted.values())
        self._embedding, self._head = (
            sum(counted[id(p)] for p in part.parameters()) if part is not None else 0
            for part in (model.get_input_embeddings(), model.get_output_embeddings())
        )
        tied = model.get_output_embeddings()
        if tied is not None and tied.weight is model.get_input_embeddings().weight:
            # One matrix, looked up at the one end and multiplied with at the other.
            self._embedding = 0
        self._processor = time.process_time()

    @property
    def measure(self) -> str:
        """What utilisation is a share of; empty where it is not measured."""
        if not self._gpu:
            return "the cores' time"
        return "the device's peak operations in bfloat16" if self._peak else ""

    def restart(self) -> None:
        """What is measured next begins now."""
        self._processor = time.process_time()

    def busy(self, tokens: int, taught: int) -> float:
        """Seconds since the restart for which the device, fully used, would have been busy; 0 where nobody knows."""
        if not self._gpu:
            return (time.process_time() - self._processor) / torch.get_num_threads()
        if not self._peak or not tokens:
            return 0.0
        each = flops_per_token(self._total, self._embedding, self._head, frozen=self._frozen, taught=taught / tokens)
        return tokens * each / self._peak

    def memory(self) -> dict[str, int]:
        """Peaks so far, in bytes: of this process, and on its GPU."""
        peaks = {"memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        if self._gpu:
            peaks["device_memory_bytes"] = torch.cuda.max_memory_allocated(self._device)
        return peaks
