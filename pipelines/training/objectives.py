"""What a step learns: the loss over some bins, what it is a mean over, and the figures beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.training.bins import Bin, BinFile

Numbers = Sequence[int | None]
"""Bins of a side; None is one that weighs nothing."""


class Objective(Protocol):
    """What the loop and the validation ask of it."""

    figures: tuple[str, ...]
    """Names of what is measured after the loss."""

    def weights(self, side: BinFile) -> list[int]:
        """What each bin counts in a mean."""
        ...

    def example_weights(self, row: Bin) -> list[int]:
        """What each example of a bin counts in a mean."""
        ...

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[1 + figures]: the bins' loss and figures, summed; the first may be learnt from."""
        ...

    def tried(self, engine: Any, rows: Sequence[Bin]) -> Tensor:
        """The loss of rows that are no bins of a side: to see what a pass takes."""
        ...

    def each(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[examples, 1 + figures]: the same of each of the bins' examples, in their order, in 64 bits."""
        ...


@dataclass
class Supervised:
    """To give the answers: a mean over supervised tokens, in nats."""

    device: "torch.device | str"
    figures: tuple[str, ...] = ()

    def weights(self, side: BinFile) -> list[int]:
        """Supervised tokens of each bin."""
        return side.taught

    def example_weights(self, row: Bin) -> list[int]:
        """Supervised tokens of each example."""
        ends = np.cumsum([0, *row.lengths])
        return [sum(row.supervised[start:end]) for start, end in pairwise(ends)]

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[1]: the cross-entropy."""
        return self.tried(engine, [side.read(number) for number in numbers]).reshape(1)

    def tried(self, engine: Any, rows: Sequence[Bin]) -> Tensor:
        """The cross-entropy of some rows."""
        loss: Tensor = engine(*self._inputs(engine, rows))
        return loss

    def each(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[examples, 1]: the cross-entropy of each example."""
        rows = [side.read(number) for number in numbers]
        found = engine(*self._inputs(engine, rows), each=True).double()
        counts = [n for number, row in zip(numbers, rows, strict=True) if number is not None
                  for n in self.example_weights(row)]  # fmt: skip
        places = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        summed = torch.zeros(len(counts), dtype=torch.float64, device=found.device)
        return summed.index_add(0, places.to(found.device), found).unsqueeze(1)

    def _inputs(self, engine: Any, rows: Sequence[Bin]) -> tuple[Any, ...]:
        """What the loss module takes; DeepSpeed's engine has it inside."""
        inputs: tuple[Any, ...] = getattr(engine, "module", engine).inputs_of(rows, self.device)
        return inputs
