"""What the workers of a run tell each other. Every worker must call these, and all get the same answer."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from cluster.errors import UserError

T = TypeVar("T")


def refuse_together(problem: UserError | None) -> None:
    """Raise the first worker's problem on every worker: the others would wait for it for ever."""
    for found in gathered((problem.message, problem.remedy) if problem else None):
        if found:
            raise UserError(*found)


def gathered(value: T) -> list[T]:
    """Every worker's value, by rank."""
    told: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(told, value)
    return told


def shared(value: T) -> T:
    """Rank 0's value."""
    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def summed(values: Sequence[float], device: "torch.device | str") -> list[float]:
    """The sum of each value over all workers, in 64 bits."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def highest(value: int, device: "torch.device | str") -> int:
    """The highest value of all workers."""
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor[0])
