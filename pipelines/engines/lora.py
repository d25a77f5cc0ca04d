"""LoRA for batches whose rows use different adapters.

PEFT can do it (`adapter_names`), with a hook on every layer at every step and copies of rows in every layer; on small
steps that costs more than the model itself (`tests/benchmarks/engine.py`). Here all adapters together cost two
matrix products and a mask a layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cluster.errors import UserError


class Rows:
    """Which adapter answers each row of the present batch; shared by all layers."""

    def __init__(self) -> None:
        self.adapters: tuple[str | None, ...] = ()
        self._device = torch.device("cpu")
        self._masks: dict[tuple[tuple[str, int], ...], torch.Tensor] = {}

    def assign(self, adapters: Sequence[str | None], device: torch.device) -> None:
        """Set the adapter of each row; None: the bare base."""
        if self.adapters != tuple(adapters):
            self.adapters, self._device, self._masks = tuple(adapters), device, {}

    @property
    def common(self) -> str | None:
        """The adapter of all rows, if they have one in common."""
        return self.adapters[0] if len(set(self.adapters)) == 1 else None

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

    The adapters' matrices stand side by side: a mixed batch goes through all of them at once, and between the two
    products, where a row is only as wide as the ranks, what is not its own is set to zero.

    DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5) also sets the length of each row of the adapted weight: a gain
    on what base and update give, of which the update's part goes into the second matrix.
    """

    def __init__(self, layer: Any, rows: Rows) -> None:
        """From PEFT's layer; its scale (alpha / r, or alpha / sqrt(r) for rsLoRA) goes into the second matrix."""
        super().__init__()
        self.base = layer.base_layer
        self._rows = rows
        down = {name: layer.lora_A[name].weight.detach().t() for name in layer.lora_A}
        up = {name: (layer.lora_B[name].weight.detach() * layer.scaling[name]).t() for name in layer.lora_A}
        self._gains = {name: dora_gain(layer, name) for name in layer.lora_A if layer.use_dora[name]}
        up |= {name: up[name] * gain for name, gain in self._gains.items()}
        self._ranks = tuple((name, matrix.shape[1]) for name, matrix in down.items())
        self._own = {name: (down[name].contiguous(), up[name].contiguous()) for name in down}
        self._all = self._own[next(iter(down))]
        if len(down) > 1:
            self._all = torch.cat(list(down.values()), dim=1), torch.cat(list(up.values()))

    @property
    def weight(self) -> torch.Tensor:
        """The base's: T5 looks at its type before it multiplies."""
        found: torch.Tensor = self.base.weight
        return found

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, columns, width) in and out."""
        output: torch.Tensor = self.base(inputs)
        used = {name for name in self._rows.adapters if name in self._own}
        if not used:
            return output
        common = self._rows.common
        if self._gains.keys() & used:
            output = self._rescaled(output, common)
        down, up = self._own[common] if common else self._all
        inner = inputs @ down
        if not common:
            inner.masked_fill_(self._rows.others(self._ranks), 0)
        output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), up)
        return output

    def _rescaled(self, output: torch.Tensor, common: str | None) -> torch.Tensor:
        """What the base gave, times each row's gain; its bias stays as it is."""
        ones = torch.ones_like(output[0, 0])
        names = [common] if common else self._rows.adapters
        gains = torch.stack([ones if name is None else self._gains.get(name, ones) for name in names]).unsqueeze(1)
        bias = self.base.bias
        return output * gains if bias is None else (output - bias) * gains + bias


@torch.no_grad()
def dora_gain(layer: Any, name: str) -> torch.Tensor:
    """[outputs]: the trained length of each row of the adapted weight over the length that it has."""
    update = layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float()
    adapted = layer.base_layer.weight.float() + layer.scaling[name] * update
    magnitude = layer.lora_magnitude_vector[name].weight
    gain: torch.Tensor = magnitude.float() / torch.linalg.norm(adapted, dim=1)
    return gain.to(magnitude.dtype)


def replace_peft_layers(model: nn.Module, rows: Rows) -> None:
    """Put an `AdaptedLinear` where PEFT put its layers. Raises UserError for anything but LoRA, rsLoRA and DoRA."""
    from peft.tuners.lora.layer import Linear as PeftLinear
    from peft.tuners.lora.variants import DoraLinearVariant
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for path, module in list(model.named_modules()):
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        if (
            not isinstance(module, PeftLinear)
            or type(module.base_layer) is not nn.Linear
            or not all(isinstance(variant, DoraLinearVariant) for variant in module.lora_variant.values())
            or any(module.lora_bias.values())
        ):
            raise UserError(
                f"{path}: only LoRA, rsLoRA and DoRA on linear layers can be served beside their base.",
                "Train with method lora and without biases or modules_to_save.",
            )
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, AdaptedLinear(module, rows))
