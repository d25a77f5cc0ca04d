"""What a step learns: the loss over some bins, what it is a mean over, and the figures beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.recipe import Train
from pipelines.training.bins import Bin, BinFile
from pipelines.training.job import PREFERENCE_FIGURES

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

    def tried(self, engine: Any, row: Bin, width: int) -> Tensor:
        """The loss of `width` times a row that is no bin of a side: to see what a pass takes."""
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
        loss: Tensor = engine(*_inputs(engine, [side.read(number) for number in numbers], self.device))
        return loss.reshape(1)

    def tried(self, engine: Any, row: Bin, width: int) -> Tensor:
        """The cross-entropy."""
        loss: Tensor = engine(*_inputs(engine, [row] * width, self.device))
        return loss

    def each(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[examples, 1]: the cross-entropy of each example."""
        rows = [side.read(number) for number in numbers]
        found = engine(*_inputs(engine, rows, self.device), each=True).double()
        counts = [n for number, row in zip(numbers, rows, strict=True) if number is not None
                  for n in self.example_weights(row)]  # fmt: skip
        places = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        summed = torch.zeros(len(counts), dtype=torch.float64, device=found.device)
        return summed.index_add(0, places.to(found.device), found).unsqueeze(1)


@dataclass
class Preferences:
    """To prefer the chosen answers: a mean over pairs."""

    device: "torch.device | str"
    figures: tuple[str, ...] = PREFERENCE_FIGURES
    references: "dict[BinFile, np.ndarray[Any, Any]] | None" = None
    """Of each side the base's scores of every pair, [pairs, 2], for an objective that has a reference."""

    def weights(self, side: BinFile) -> list[int]:
        """Pairs of each bin."""
        return side.examples

    def example_weights(self, row: Bin) -> list[int]:
        """One for each pair."""
        return [1] * len(row.ids)

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[3]: loss, reward margins, and how many pairs are told right."""
        found: Tensor = engine(*self._inputs(engine, side, numbers))
        return found

    def tried(self, engine: Any, row: Bin, width: int) -> Tensor:
        """The loss of pairs, each a row in halves."""
        half = len(row.tokens) // 2
        taught = min(sum(row.supervised), len(row.tokens) - 2)
        of_each = taught // 2, taught - taught // 2
        masks = [[0] * (length - count) + [1] * count
                 for length, count in zip((half, len(row.tokens) - half), of_each, strict=True)]  # fmt: skip
        pair = Bin(row.tokens, [*masks[0], *masks[1]], [half, len(row.tokens) - half], ["pair"])
        reference = () if self.references is None else (torch.zeros((width, 2), device=self.device),)
        loss: Tensor = engine(*_inputs(engine, [pair] * width, self.device), *reference)[0]
        return loss

    def each(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[pairs, 3]: the same of each pair."""
        found: Tensor = engine(*self._inputs(engine, side, numbers), each=True)
        return found.double()

    def scores(self, engine: Any, side: BinFile, numbers: Numbers) -> "np.ndarray[Any, Any]":
        """[pairs, 2]: the answers' log-probabilities as the model is now."""
        rows = [side.read(number) for number in numbers]
        found = engine(*_inputs(engine, rows, self.device), scores_only=True)
        return found.float().cpu().numpy()  # type: ignore[no-any-return]

    def _inputs(self, engine: Any, side: BinFile, numbers: Numbers) -> tuple[Any, ...]:
        inputs = _inputs(engine, [side.read(number) for number in numbers], self.device)
        if self.references is None:
            return inputs
        known = self.references[side]
        parts = [known[side.first_example[i] :][: side.examples[i]] for i in numbers if i is not None]
        return *inputs, torch.from_numpy(np.concatenate([np.zeros((0, 2), np.float32), *parts])).to(self.device)


def objective_of(train: Train, device: "torch.device | str") -> Supervised | Preferences:
    """The recipe's objective, on this worker's device."""
    if not train.learns_from_pairs:
        return Supervised(device)
    return Preferences(device, references={} if train.objective == "dpo" else None)


def _inputs(engine: Any, rows: Sequence[Bin], device: "torch.device | str") -> tuple[Any, ...]:
    """What the loss module takes; DeepSpeed's engine has it inside."""
    inputs: tuple[Any, ...] = getattr(engine, "module", engine).inputs_of(rows, device)
    return inputs
