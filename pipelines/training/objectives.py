"""What a step learns: the loss over some bins, what it is a mean over, and the figures beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.recipe import Train
from pipelines.training.bins import BinFile
from pipelines.training.job import PREFERENCE_FIGURES
from pipelines.training.losses import Batch, SupervisedLoss
from pipelines.training.preference import PreferenceLoss

Numbers = Sequence[int | None]
"""Bins of a side; None is one that weighs nothing."""


class Objective(Protocol):
    """What the loop asks of it."""

    figures: tuple[str, ...]
    """Names of what `sums` gives after the loss."""

    def weights(self, side: BinFile) -> list[int]:
        """What each bin counts in a mean."""
        ...

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[1 + figures]: the bins' loss and figures, summed; the first may be learnt from."""
        ...


def wrap_model(model: Any, train: Train, *, same_calls: bool) -> SupervisedLoss | PreferenceLoss:
    """The model as a module whose forward pass is the objective's loss."""
    if train.objective == "sft":
        return SupervisedLoss(model, same_calls=same_calls)
    return PreferenceLoss(model, train.objective, train.beta, same_calls=same_calls)


def objective_of(train: Train, device: "torch.device | str") -> "Supervised | Preferences":
    """The recipe's objective, on this worker's device."""
    return Preferences(device) if train.learns_from_pairs else Supervised(device)


@dataclass
class Supervised:
    """To give the answers: a mean over supervised tokens."""

    device: "torch.device | str"
    figures: tuple[str, ...] = ()

    def weights(self, side: BinFile) -> list[int]:
        """Supervised tokens."""
        return side.taught

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[1]: cross-entropy in nats."""
        batch = Batch.of([side.read(number) for number in numbers], self.device)
        loss: Tensor = engine(batch.tokens, batch.positions, batch.targets)
        return loss.unsqueeze(0)


@dataclass
class Preferences:
    """To prefer the chosen answers: a mean over pairs."""

    device: "torch.device | str"
    figures: tuple[str, ...] = PREFERENCE_FIGURES
    references: dict[BinFile, "np.ndarray[Any, Any]"] = field(default_factory=dict)
    """Of each side the base's scores of every pair, [pairs, 2]; none for an objective without a reference."""

    def weights(self, side: BinFile) -> list[int]:
        """Pairs."""
        return side.examples

    def sums(self, engine: Any, side: BinFile, numbers: Numbers) -> Tensor:
        """[3]: loss, reward margins, and how many pairs are told right."""
        reference = self.references.get(side)
        inputs = self._inputs(side, numbers)
        if reference is None:
            return engine(*inputs)  # type: ignore[no-any-return]
        known = np.zeros((*inputs[-1].shape, 2), dtype=np.float32)
        for row, number in enumerate(numbers):
            if number is not None:
                of_bin = reference[side.first_example[number] :][: side.examples[number]]
                known[row, : len(of_bin)] = of_bin
        return engine(*inputs, torch.from_numpy(known).to(self.device))  # type: ignore[no-any-return]

    def scores(self, engine: Any, side: BinFile, numbers: Numbers) -> "list[np.ndarray[Any, Any]]":
        """The answers' log-probabilities for each bin, [its pairs, 2], as the model is now."""
        found = engine(*self._inputs(side, numbers), scores_only=True).float().cpu().numpy()
        counts = [0 if number is None else side.examples[number] for number in numbers]
        return [scores[:count] for scores, count in zip(found, counts, strict=True)]

    def _inputs(self, side: BinFile, numbers: Numbers) -> tuple[Tensor, ...]:
        batch = Batch.of([side.read(number) for number in numbers], self.device)
        counts = [0 if number is None else side.examples[number] for number in numbers]
        most = max(1, *counts)
        pairs = torch.tensor([[place < count for place in range(most)] for count in counts], device=self.device)
        return batch.tokens, batch.positions, batch.targets, pairs
