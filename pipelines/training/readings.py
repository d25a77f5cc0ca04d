"""What steps leave on the device until somebody reads it: the processor does not wait for it in between."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a worker."""

    step: int
    """Optimiser step that it belongs to, from 1."""
    number: int
    """Within the step, from 1."""
    bins: list[int | None]


@dataclass(frozen=True)
class Read:
    """What was on the device."""

    losses: list[float]
    """Summed loss of each step, of this worker; 0 for what is no number."""
    figures: list[float]
    """What is measured beside the loss, summed over the steps."""
    norms: list[float]
    """Gradient norm of each step; empty where none is kept."""
    lost: Pass | None
    """The first pass whose loss is no number."""


@dataclass
class Readings:
    """The steps since the last reading."""

    tokens: int = 0
    """Of this worker."""
    weights: list[int] = field(default_factory=list)
    """What each step's loss is a mean over: supervised tokens or pairs, of all workers."""
    taught: int = 0
    """Supervised tokens of all workers."""
    seconds: float = 0.0
    _passes: list[Pass] = field(default_factory=list)
    _sums: list[Tensor] = field(default_factory=list)
    _norms: list[Any] = field(default_factory=list)

    def add(self, done: Pass, sums: Tensor, tokens: int) -> None:
        """Keep a pass's loss, and what is measured beside it, where they are: [1 + figures]."""
        self._passes.append(done)
        self._sums.append(sums.detach())
        self.tokens += tokens

    def end_step(self, norm: Any, weight: int, taught: int) -> None:
        """The step's gradient norm (a tensor, a number, or None), weight and supervised tokens."""
        self.weights.append(weight)
        self.taught += taught
        if norm is not None:
            self._norms.append(norm)

    def read(self) -> Read:
        """Everything, in one copy from the device."""
        device, width = self._sums[0].device, len(self._sums[0])
        norms = [torch.as_tensor(norm, dtype=torch.float32, device=device).reshape(()) for norm in self._norms]
        values = torch.cat([sums.float() for sums in self._sums] + [torch.stack(norms)] * bool(norms)).tolist()
        count = width * len(self._sums)
        losses, norms_read = values[:count:width], values[count:]
        lost = next((p for p, loss in zip(self._passes, losses, strict=True) if not math.isfinite(loss)), None)
        first = self._passes[0].step
        summed = [0.0] * len(self.weights)
        for done, loss in zip(self._passes, losses, strict=True):
            summed[done.step - first] += loss if math.isfinite(loss) else 0.0
        # DeepSpeed writes -1 for a norm that is no number.
        figures = [sum(values[place:count:width]) for place in range(1, width)]
        return Read(summed, figures, [norm if norm >= 0 else math.nan for norm in norms_read], lost)
