"""Weights and optimiser state of a DeepSpeed engine, by parameter name: out of any ZeRO stage and into any other.

Every stage keeps 32-bit masters and Adam's moments somewhere: stage 0 in the parameters and their state, 1 and 2
in flat partitions of a group, 3 in flat partitions of each parameter. A `Piece` says where a worker's share of a
parameter is, whichever the stage, so that saving and loading are the same for all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.errors import UserError
from pipelines.training.fragments import Fragment, FragmentFiles, write_fragments

WEIGHT, STEP = "weight", "step"


@dataclass(frozen=True)
class Piece:
    """What one worker's optimiser holds of a parameter."""

    name: str
    start: int
    """First element in the flattened parameter."""
    length: int
    owner: Tensor
    """The tensor that the optimiser steps, and under which it keeps its state."""
    offset: int
    """First element in the owner."""
    group: int = 0
    """The optimiser's group that it is in, at stage 3."""

    def of(self, tensor: Tensor) -> Tensor:
        """Its part of a tensor that is laid out like the owner; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.length)


def pieces(engine: Any) -> Iterator[Piece]:
    """This worker's pieces of the trainable parameters, in the model's order."""
    optimizer, inner = engine.optimizer, stepping_optimizer(engine)
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if hasattr(parameter, "ds_id"):
            group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = length * optimizer._get_param_partition_rank(parameter)
            # The last partition is padded.
            length = max(0, min(length, parameter.ds_numel - start))
            yield Piece(name, start, length, optimizer.fp32_partitioned_groups_flat[group], offset, group)
        elif hasattr(parameter, "_hp_mapping"):
            mapping = parameter._hp_mapping
            if mapping is not None:
                [owner] = inner.param_groups[mapping.param_group_index]["params"]
                here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
                yield Piece(name, here.start, here.numel, owner, there.start)
        else:
            yield Piece(name, 0, parameter.numel(), parameter, 0)


def by_group(engine: Any) -> Iterator[tuple[int, list[Piece]]]:
    """This worker's pieces, of each of the optimiser's groups that may wait on a disk by itself."""
    found: dict[int, list[Piece]] = {}
    for piece in pieces(engine):
        found.setdefault(piece.group, []).append(piece)
    yield from sorted(found.items())


@contextmanager
def in_memory(engine: Any, group: int, *, changed: bool) -> Iterator[None]:
    """Within it a group's masters and moments are in memory, wherever they wait; they go back, `changed` or not."""
    optimizer = engine.optimizer
    if not (hasattr(optimizer, "_swappable_optimizer_subgroup") and optimizer._swappable_optimizer_subgroup(group)):
        yield
        return
    optimizer._optimizer_states_and_gradient_swap_in(group)
    try:
        yield
    finally:
        if changed:
            optimizer._optimizer_states_and_gradient_swap_out(group)
        else:
            optimizer._release_swap_buffers(group)


def stepping_optimizer(engine: Any) -> Any:
    """Torch's optimiser inside whatever DeepSpeed put around it."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def save_engine(engine: Any, folder: Path, rank: int, world: int) -> None:
    """Write this worker's share of weights and moments, a file for each group: what waits on a disk never all comes."""
    inner = stepping_optimizer(engine)
    state, not_sharded = inner.state, inner is engine.optimizer
    for group, held in by_group(engine):
        with in_memory(engine, group, changed=False):
            fragments = []
            for number, piece in enumerate(held):
                # Where nothing is sharded every worker holds everything: they take turns.
                if not piece.length or (not_sharded and number % world != rank):
                    continue
                fragments.append(Fragment(WEIGHT, piece.name, piece.start, piece.of(piece.owner)))
                for kind, value in state.get(piece.owner, {}).items():
                    if kind == STEP:
                        step = torch.as_tensor(value, dtype=torch.float32).reshape(1)
                        fragments.append(Fragment(STEP, piece.name, piece.start, step))
                    elif torch.is_tensor(value) and value.shape == piece.owner.shape:
                        fragments.append(Fragment(kind, piece.name, piece.start, piece.of(value)))
            write_fragments(folder / f"state-{rank:05d}-{group:03d}.safetensors", fragments)


def load_engine(engine: Any, paths: list[Path], *, moments: bool = True) -> None:
    """Fill the engine from what any number of workers wrote at any stage; every worker must call it.

    Raises UserError when a parameter is not there, or not whole.
    """
    files = FragmentFiles(paths)
    inner = stepping_optimizer(engine)
    missing: list[str] = []
    if hasattr(engine.optimizer, "checkpoint_event_prologue"):
        engine.optimizer.checkpoint_event_prologue()
    with torch.no_grad():
        for group, held in by_group(engine):
            with in_memory(engine, group, changed=True):
                for piece in held:
                    if not files.read(WEIGHT, piece.name, piece.start, piece.of(piece.owner)):
                        missing.append(piece.name)
                    if moments:
                        missing += _load_moments(inner, files, piece)
        # Together: what comes next waits for every worker.
        told: list[list[str]] = [[]] * dist.get_world_size()
        dist.all_gather_object(told, missing)
        if lacking := sorted({name for names in told for name in names}):
            shown = ", ".join(lacking[:3])
            raise UserError(f"The checkpoint lacks {len(lacking)} parts: {shown}.", "Start over with --fresh.")
        _publish(engine)


def _load_moments(inner: Any, files: FragmentFiles, piece: Piece) -> list[str]:
    """Fill a piece's moments; those that are not there, or not whole."""
    missing = []
    for kind in files.kinds(piece.name):
        if kind == WEIGHT:
            continue
        # Only now: a parameter that never had a gradient has no state, and must not get any.
        state = inner.state[piece.owner]
        if kind == STEP:
            on_device = any(group.get("fused") or group.get("capturable") for group in inner.param_groups)
            step = files.first(STEP, piece.name)
            assert step is not None
            state[STEP] = step.reshape(()).to(piece.owner.device if on_device else "cpu")
            continue
        if kind not in state:
            state[kind] = torch.zeros_like(piece.owner, requires_grad=False)
        if not files.read(kind, piece.name, piece.start, piece.of(state[kind])):
            missing.append(f"{kind} of {piece.name}")
    return missing


def _publish(engine: Any) -> None:
    """The masters as weights that the model computes with."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            with in_memory(engine, group, changed=False):
                optimizer._reassign_or_swap_out_partitioned_parameters(group)
        # Small parameters are kept whole everywhere: they are gathered anew.
        optimizer.checkpoint_event_epilogue()
    elif hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
