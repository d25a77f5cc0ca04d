"""LoRA for batches whose rows use different adapters.

PEFT can do it (`adapter_names`), with a hook on every layer at every step and copies of rows in every layer; on small
steps that costs more than the model itself (`tests/benchmarks/engine.py`). Here the rows of each adapter are found
once a step, and an adapter costs two matrix products a layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cluster.errors import UserError


class Rows:
    """Which rows of the present batch each adapter answers; shared by all layers."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, torch.Tensor | None]] = []
        """Adapter and its row numbers; None instead of them: all rows."""

    def assign(self, adapters: Sequence[str | None], device: torch.device) -> None:
        """Set the adapter of each row; None: the bare base."""
        self.groups = []
        for name in dict.fromkeys(adapters):
            if name is not None:
                rows = [index for index, adapter in enumerate(adapters) if adapter == name]
                chosen = None if len(rows) == len(adapters) else torch.tensor(rows, device=device)
                self.groups.append((name, chosen))


class AdaptedLinear(nn.Module):
    """A frozen linear layer and the low-rank updates of several adapters (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, layer: Any, rows: Rows) -> None:
        """From PEFT's layer; the scale alpha / r goes into the second matrix."""
        super().__init__()
        self.base = layer.base_layer
        self._rows = rows
        self._down = {name: layer.lora_A[name].weight.detach().t() for name in layer.lora_A}
        self._up = {name: (layer.lora_B[name].weight.detach() * layer.scaling[name]).t() for name in layer.lora_A}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, columns, width) in and out."""
        output: torch.Tensor = self.base(inputs)
        for name, rows in self._rows.groups:
            if name not in self._down:
                continue
            chosen = inputs if rows is None else inputs.index_select(0, rows)
            inner = chosen.reshape(-1, chosen.shape[-1]) @ self._down[name]
            if rows is None:
                output.view(-1, output.shape[-1]).addmm_(inner, self._up[name])
            else:
                update = (inner @ self._up[name]).view(*chosen.shape[:-1], -1)
                output.index_add_(0, rows, update)
        return output


def replace_peft_layers(model: nn.Module, rows: Rows) -> None:
    """Put an `AdaptedLinear` where PEFT put its layers. Raises UserError for anything but plain LoRA."""
    from peft.tuners.lora.layer import Linear as PeftLinear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for path, module in list(model.named_modules()):
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        if (
            not isinstance(module, PeftLinear)
            or type(module.base_layer) is not nn.Linear
            or module.lora_variant
            or any(module.lora_bias.values())
        ):
            raise UserError(
                f"{path}: only plain LoRA on linear layers can be served beside its base.",
                "Train with method lora and without DoRA, biases or modules_to_save.",
            )
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, AdaptedLinear(module, rows))
