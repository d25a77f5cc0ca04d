"""The loss of each validation example, all workers together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipelines.data.packing import drawn
from pipelines.training.bins import BinFile, micro_batches
from pipelines.training.objectives import Objective
from pipelines.training.overfit import by_loss, group_numbers, paired_difference

EXAMPLES_SHOWN = 10
"""Examples with the highest loss that a report names, and as many with the lowest."""


class Validation:
    """A side's examples and the passes that measure them; the same on every worker."""

    def __init__(
        self,
        side: BinFile,
        groups: Mapping[str, str],
        objective: Objective,
        *,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`groups`: example -> its group, for those that share one; `limit`: so many bins only, chosen by `seed`."""
        self.side, self._objective = side, objective
        # Of like length together.
        self.bins = sorted(drawn(len(side), seed, limit), key=lambda i: (-side.sizes[i], i))
        """Numbers of the side's bins that are measured."""
        self._first: dict[int, int] = {}
        self.ids: list[str] = []
        weights: list[int] = []
        for number in self.bins:
            row = side.read(number)
            self._first[number] = len(self.ids)
            self.ids += row.ids
            weights += objective.example_weights(row)
        self.weights = np.asarray(weights, dtype=np.float64)
        """What each example counts in the mean: its supervised tokens, or one for a pair."""
        self.groups = group_numbers([groups.get(example, example) for example in self.ids])

    def mean(self, losses: np.ndarray) -> float:
        """The loss per supervised token (or pair), of losses that are summed per example."""
        return float(losses.sum() / max(1.0, self.weights.sum()))

    def figures(self, measured: np.ndarray) -> dict[str, float]:
        """The means of what was measured beside the losses, by name."""
        return {name: self.mean(measured[:, place]) for place, name in enumerate(self._objective.figures, start=1)}

    @torch.no_grad()
    def measure(self, engine: Any, width: int, rank: int, world: int, device: "torch.device | str") -> np.ndarray:
        """[examples, 1 + figures]: the summed loss of each example and what is measured beside it, ordered as `ids`.

        Every worker must call it and gets them all.
        """
        engine.eval()
        # Each worker the same number of passes, or ZeRO-3 would wait for ever.
        numbers: list[int | None] = [*self.bins, *[None] * (-len(self.bins) % (world * width))]
        measured = torch.zeros((len(self.ids), 1 + len(self._objective.figures)), dtype=torch.float64, device=device)
        for micro in micro_batches(numbers, rank, world, width):
            found, done = self._objective.each(engine, self.side, micro), 0
            for number in micro:
                if number is not None:
                    first, count = self._first[number], self.side.examples[number]
                    measured[first : first + count] = found[done : done + count]
                    done += count
        engine.train()
        dist.all_reduce(measured)
        return measured.cpu().numpy()

    def shown(self, losses: Mapping[str, list[float]], kept: str) -> dict[str, Any]:
        """The best and the worst examples with the `kept` weights ("best", "last"), and what was gained over "base"."""
        if kept not in losses:
            return {}
        before, after = np.asarray(losses["base"]) if "base" in losses else None, np.asarray(losses[kept])
        gain = None if before is None else paired_difference(before, after, self.weights, self.groups).as_json()
        return {
            "examples_by_loss": by_loss(self.ids, self.weights, after, before, EXAMPLES_SHOWN),
            "against_base": gain,
        }
