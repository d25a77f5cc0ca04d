"""The reference of DPO: the base's own scores of the pairs, computed once and kept beside the bins.

Before its first step the model is the base (an adapter begins at zero), so no second copy of it is needed, and every
later run over the same bins reads what is stored.
"""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from pipelines.fingerprint import fingerprint, short
from pipelines.training.bins import BinFile, micro_batches
from pipelines.training.objectives import Preferences

if TYPE_CHECKING:
    from pipelines.workspace import Workspace

Scores = np.ndarray[Any, Any]
"""[pairs of a side, 2] of 32 bits; NaN for pairs that a run will not see."""


def reference_place(bins: str, dtype: str, method: str, wanted: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Where in storage the scores of the `wanted` bins are; the bins' name holds split and base.

    Arithmetic and quantisation change the scores a little: DPO begins at a margin of 0 only with its own.
    """
    return "references", f"{Path(bins).name}-{short(fingerprint(dtype, method == 'qlora', *wanted))}"


@torch.no_grad()
def reference_scores(
    engine: Any,
    objective: Preferences,
    sides: Mapping[str, tuple[BinFile, Sequence[int]]],
    width: int,
    workspace: "Workspace",
    place: tuple[str, ...],
) -> dict[str, Scores]:
    """Name -> the scores of a side's pairs, in the bins that are named with it; stored ones where there are.

    Every worker must call it, before the first step; each computes its share, and rank 0 stores what is new.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    scores, new = {}, False
    engine.eval()
    for name, (side, wanted) in sides.items():
        known = torch.full((sum(side.examples), 2), torch.nan, device=objective.device)
        if rank == 0 and (stored := _stored(workspace, place, name, len(known))) is not None:
            known.copy_(torch.from_numpy(stored))
        dist.broadcast(known, src=0)
        values: Scores = known.cpu().numpy()
        missing = [number for number in wanted if np.isnan(values[side.first_example[number], 0])]
        new = new or bool(missing)
        missing.sort(key=lambda number: (-side.sizes[number], number))
        fill: list[int | None] = [None] * (-len(missing) % (world * width))
        mine = torch.zeros_like(known)
        for micro in micro_batches([*missing, *fill], rank, world, width):
            found, done = torch.from_numpy(objective.scores(engine, side, micro)).to(mine.device), 0
            for number in micro:
                if number is not None:
                    first, count = side.first_example[number], side.examples[number]
                    mine[first : first + count] = found[done : done + count]
                    done += count
        dist.all_reduce(mine)
        for number in missing:
            rows = slice(side.first_example[number], side.first_example[number] + side.examples[number])
            values[rows] = mine[rows].cpu().numpy()
        scores[name] = values
    engine.train()
    if rank == 0 and new:
        _store(workspace, place, scores)
    return scores


def _stored(workspace: "Workspace", place: tuple[str, ...], name: str, pairs: int) -> Scores | None:
    try:
        found: Scores = np.load(workspace.fetch(workspace.uri(*place)) / f"{name}.npy")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (pairs, 2) else None


def _store(workspace: "Workspace", place: tuple[str, ...], scores: dict[str, Scores]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name, values in scores.items():
            np.save(Path(scratch, f"{name}.npy"), values)
        # Another trial may be writing the same numbers: whoever comes first is right.
        with contextlib.suppress(OSError):
            workspace.keep(Path(scratch), *place)
