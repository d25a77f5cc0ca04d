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
    norms: list[float]
    """Gradient norm of each step; empty where none is kept."""
    lost: Pass | None
    """The first pass whose loss is no number."""


@dataclass
class Readings:
    """The steps since the last reading."""

    tokens: int = 0
    """Of this worker."""
    taught: list[int] = field(default_factory=list)
    """Supervised tokens of each step, of all workers."""
    seconds: float = 0.0
    _passes: list[Pass] = field(default_factory=list)
    _losses: list[Tensor] = field(default_factory=list)
    _norms: list[Any] = field(default_factory=list)

    def add(self, done: Pass, loss: Tensor, tokens: int) -> None:
        """Keep a pass's loss where it is."""
        self._passes.append(done)
        self._losses.append(loss.detach())
        self.tokens += tokens

    def end_step(self, norm: Any, taught: int) -> None:
        """The step's gradient norm (a tensor, a number, or None)."""
        self.taught.append(taught)
        if norm is not None:
            self._norms.append(norm)

    def read(self) -> Read:
        """Everything, in one copy from the device."""
        device = self._losses[0].device
        norms = [torch.as_tensor(norm, dtype=torch.float32, device=device).reshape(()) for norm in self._norms]
        values = torch.stack([loss.float().reshape(()) for loss in self._losses] + norms).tolist()
        losses, norms_read = values[: len(self._losses)], values[len(self._losses) :]
        lost = next((p for p, loss in zip(self._passes, losses, strict=True) if not math.isfinite(loss)), None)
        first = self._passes[0].step
        summed = [0.0] * len(self.taught)
        for done, loss in zip(self._passes, losses, strict=True):
            summed[done.step - first] += loss if math.isfinite(loss) else 0.0
        # DeepSpeed writes -1 for a norm that is no number.
        return Read(summed, [norm if norm >= 0 else math.nan for norm in norms_read], lost)
