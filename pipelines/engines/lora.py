"""LoRA for batches whose rows use different adapters.

PEFT can do it (`adapter_names`), with a hook on every layer at every step and copies of rows in every layer; on small
steps that costs more than the model itself (`tests/benchmarks/engine.py`). Here all adapters of a batch together cost
two matrix products and a mask a layer.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one linear layer, in the layer's own dtype and on its device."""

    down: torch.Tensor
    """(rank, inputs)"""
    up: torch.Tensor
    """(rank, outputs); the adapter's scale and DoRA's gain are in it."""
    gain: torch.Tensor | None = None
    """(outputs,): what DoRA multiplies the base's part by."""


class Rows:
    """Which adapter answers each row of the present batch; shared by all layers."""

    def __init__(self) -> None:
        self.adapters: tuple[str | None, ...] = ()
        self.present: frozenset[str | None] = frozenset()
        self._device = torch.device("cpu")
        self._masks: dict[tuple[tuple[str, int], ...], torch.Tensor] = {}

    def assign(self, adapters: Sequence[str | None], device: torch.device) -> None:
        """Set the adapter of each row; None: the bare base."""
        if self.adapters != tuple(adapters):
            self.adapters, self.present = tuple(adapters), frozenset(adapters)
            self._device, self._masks = device, {}

    @property
    def common(self) -> str | None:
        """The adapter of all rows, if they have one in common."""
        return self.adapters[0] if len(self.present) == 1 else None

    def others(self, ranks: tuple[tuple[str, int], ...]) -> torch.Tensor:
        """(rows, 1, sum of the ranks): True where a rank belongs to an adapter that the row does not use."""
        if ranks not in self._masks:
            # Most layers have the same ranks: made once a batch.
            owners = [name for name, rank in ranks for _ in range(rank)]
            mask = torch.tensor([[owner != name for owner in owners] for name in self.adapters], device=self._device)
            self._masks[ranks] = mask.unsqueeze(1)
        return self._masks[ranks]


class AdaptedLinear(nn.Module):
    """A frozen linear layer and the low-rank updates of several adapters (Hu et al. 2021, arXiv 2106.09685).

    The matrices of all adapters lie one after the other in one memory, of which each adapter's own are a part, and
    those of neighbours too. A mixed batch goes through all that its rows use at once, and between the two products,
    where a row is only as wide as the ranks, what is not its own is set to zero. Adapters that no row uses take no
    part: they may come and go, and not a bit of the answers changes (BLAS promises that for memory aligned alike, as it
    is wherever ranks times widths are multiples of 64 bytes).

    DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5) also sets the length of each row of the adapted weight: a gain
    on what base and update give, of which the update's part goes into the second matrix.
    """

    def __init__(self, base: nn.Linear, rows: Rows) -> None:
        super().__init__()
        self.base = base
        self._rows = rows
        self._own: dict[str, LowRank] = {}
        self._all: tuple[torch.Tensor, torch.Tensor] | None = None
        """The matrices of all adapters in the order of `_own`, whose tensors are parts of them."""
        self._mixed: tuple[tuple[str, ...], torch.Tensor, torch.Tensor] | None = None
        """Those of the last mixture."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        """The bare layer: what is copied is a base (`bare_view`)."""
        bare: nn.Module = copy.deepcopy(self.base, memo)
        return bare

    @property
    def weight(self) -> torch.Tensor:
        """The base's: T5 looks at its type before it multiplies."""
        return self.base.weight

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters that change this layer."""
        return tuple(self._own)

    def put(self, name: str, update: LowRank) -> None:
        """Let rows of the adapter `name` be changed by `update`."""
        self._lay(self._own | {name: update})

    def drop(self, name: str) -> None:
        """Forget the adapter, and its matrices."""
        if name in self._own:
            self._lay({other: update for other, update in self._own.items() if other != name})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, columns, width) in and out."""
        output: torch.Tensor = self.base(inputs)
        # In the order in which they came, whatever the order of the rows.
        used = tuple(name for name in self._own if name in self._rows.present)
        if not used:
            return output
        common = self._rows.common
        if any(self._own[name].gain is not None for name in used):
            output = self._rescaled(output, common)
        down, up = self._side_by_side(used)
        inner = inputs @ down.t()
        if not common:
            inner.masked_fill_(self._rows.others(tuple((name, self._own[name].down.shape[0]) for name in used)), 0)
        output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), up)
        return output

    def _side_by_side(self, used: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The two matrices of these adapters; those of the last mixture are kept."""
        if len(used) == 1:
            own = self._own[used[0]]
            return own.down, own.up
        if self._mixed is None or self._mixed[0] != used:
            self._mixed = used, *self._of(used)
        return self._mixed[1:]

    def _of(self, used: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """A part of the memory of all where these lie beside each other, else a copy."""
        names, updates = tuple(self._own), [self._own[name] for name in used]
        place = names.index(used[0])
        if self._all is None or names[place : place + len(used)] != used:
            return _joined(updates)
        before = sum(len(self._own[name].down) for name in names[:place])
        down, up = (matrix.narrow(0, before, sum(len(one.down) for one in updates)) for matrix in self._all)
        return down, up

    def _lay(self, updates: dict[str, LowRank]) -> None:
        """Give all of them one memory. Without room for it everything stays as it was."""
        joined = _joined(list(updates.values())) if updates else None
        own, begin = {}, 0
        for name, update in updates.items():
            assert joined is not None
            down, up = (matrix.narrow(0, begin, len(update.down)) for matrix in joined)
            own[name] = replace(update, down=down, up=up)
            begin += len(update.down)
        self._own, self._all, self._mixed = own, joined, None

    def _rescaled(self, output: torch.Tensor, common: str | None) -> torch.Tensor:
        """What the base gave, times each row's gain; its bias stays as it is."""
        ones = torch.ones_like(output[0, 0])
        names = [common] if common else self._rows.adapters
        gains = torch.stack([self._gain(name, ones) for name in names]).unsqueeze(1)
        bias = self.base.bias
        return output * gains if bias is None else (output - bias) * gains + bias

    def _gain(self, name: str | None, ones: torch.Tensor) -> torch.Tensor:
        own = self._own.get(name) if name is not None else None
        return ones if own is None or own.gain is None else own.gain


def _joined(updates: Sequence[LowRank]) -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of several updates, one after the other."""
    return torch.cat([update.down for update in updates]), torch.cat([update.up for update in updates])


def attach(model: nn.Module, rows: Rows, name: str, updates: Mapping[str, LowRank]) -> None:
    """Let the layers of `model` at these paths add `updates` to rows of the adapter `name`."""
    for path, update in updates.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, AdaptedLinear):
            assert isinstance(layer, nn.Linear), path
            layer = AdaptedLinear(layer, rows)
            _set(model, path, layer)
        layer.put(name, update)


def detach(model: nn.Module, name: str) -> None:
    """Forget the adapter everywhere; a layer that no adapter changes is the base's own again."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, AdaptedLinear):
            layer.drop(name)
            if not layer.adapters:
                _set(model, path, layer.base)


def bare_view(model: nn.Module) -> nn.Module:
    """The base of `model` in modules of its own, over the same tensors: whoever replaces modules may do it there."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _set(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
