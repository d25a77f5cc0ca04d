"""The loss of each validation example, all workers together."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipelines.data.packing import shuffled
from pipelines.training.bins import Bin, BinFile, micro_batches
from pipelines.training.losses import Batch
from pipelines.training.overfit import group_numbers


class Validation:
    """A side's examples and the passes that measure them; the same on every worker."""

    def __init__(self, side: BinFile, groups: Mapping[str, str], *, seed: int, limit: int | None = None) -> None:
        """`groups`: example -> its group, for those that share one; `limit`: so many bins only, chosen by `seed`."""
        self._side = side
        # A trial's choice is seeded: the first bins hold the longest examples.
        chosen = shuffled(len(side), seed, 0)[:limit]
        # Of like length together.
        self._order = sorted(chosen, key=lambda i: (-side.sizes[i], i))
        self._first: dict[int | None, int] = {}
        self.ids: list[str] = []
        tokens: list[int] = []
        for number in self._order:
            row = side.read(number)
            self._first[number] = len(self.ids)
            self.ids += row.ids
            tokens += taught(row)
        self.tokens = np.asarray(tokens, dtype=np.float64)
        """Supervised tokens of each example."""
        self.groups = group_numbers([groups.get(example, example) for example in self.ids])

    def mean(self, losses: np.ndarray) -> float:
        """The loss per supervised token, of losses that are summed per example."""
        return float(losses.sum() / max(1.0, self.tokens.sum()))

    @torch.no_grad()
    def measure(self, engine: Any, width: int, rank: int, world: int, device: "torch.device | str") -> np.ndarray:
        """Summed loss of each example, in the order of `ids`; every worker must call it and gets them all."""
        engine.eval()
        # Each worker the same number of passes, or ZeRO-3 would wait for ever.
        numbers: list[int | None] = [*self._order, *[None] * (-len(self._order) % (world * width))]
        summed = torch.zeros(len(self.ids), dtype=torch.float64, device=device)
        for micro in micro_batches(numbers, rank, world, width):
            rows = [self._side.read(number) for number in micro]
            batch = Batch.of(rows, device)
            losses = engine(batch.tokens, batch.positions, batch.targets, batch.ends, each=True)
            places = [
                place
                for number, row in zip(micro, rows, strict=True)
                if number is not None
                for place, count in enumerate(taught(row), start=self._first[number])
                for _ in range(count)
            ]
            summed.index_add_(0, torch.tensor(places, dtype=torch.int64, device=device), losses.double())
        engine.train()
        dist.all_reduce(summed)
        return summed.cpu().numpy()


def taught(row: Bin) -> list[int]:
    """Supervised tokens of each example of a bin."""
    ends = np.cumsum([0, *row.lengths])
    return [sum(row.supervised[start:end]) for start, end in pairwise(ends)]
