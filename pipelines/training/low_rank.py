"""LoRA layers in fewer passes over memory: the update is added in place, its scale goes into the small matrix.

PEFT multiplies the update by its scale and adds it to the layer's output: each is a pass over a tensor of the output's
size, and each comes again in the backward pass. On a CPU they cost as much as half of the matrix products.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


class LowRankLinear(torch.autograd.Function):
    """x W' + s (x A') B' with W frozen (Hu et al. 2021, arXiv 2106.09685), and its gradients for x, A and B."""

    @staticmethod
    def forward(
        context: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """[..., in] to [..., out]; `down` is A [r, in], `up` is B [out, r]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        inner, scaled = flat @ down.t(), up * scale
        output = linear(flat, weight, bias)
        output.addmm_(inner, scaled.t())
        context.save_for_backward(flat, weight, down, scaled, inner)
        context.scale = scale
        return output.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, A and B."""
        flat, weight, down, scaled, inner = context.saved_tensors
        outer = gradient.reshape(-1, gradient.shape[-1])
        through = outer @ scaled
        back: Tensor | None = None
        if context.needs_input_grad[0]:
            back = outer @ weight
            back.addmm_(through, down)
            back = back.view(*gradient.shape[:-1], -1)
        return back, None, None, through.t() @ flat, (outer.t() @ inner) * context.scale, None


def quicken(model: torch.nn.Module) -> int:
    """Let the model's plain LoRA layers run as `LowRankLinear`; how many do.

    Names and parameters stay PEFT's. A layer that is anything but plain (dropout, DoRA, quantised weights, other
    arithmetic) keeps PEFT's way, and so does every layer while its adapter is switched off.
    """
    from peft.tuners.lora.layer import Linear

    plain = [layer for layer in model.modules() if isinstance(layer, Linear) and _is_plain(layer)]
    for layer in plain:
        # On the layer itself: its class, its name and its parameters stay PEFT's.
        layer.__dict__["forward"] = partial(_forward, layer, layer.forward)
    return len(plain)


def _is_plain(layer: Any) -> bool:
    base, names = layer.base_layer, list(layer.active_adapters)
    return (
        len(names) == 1
        and type(base) is torch.nn.Linear
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and isinstance(layer.lora_dropout[names[0]], torch.nn.Identity)
        and base.weight.dtype == layer.lora_A[names[0]].weight.dtype
        and not base.weight.requires_grad
    )


def _forward(layer: Any, otherwise: Any, inputs: Tensor, *arguments: Any, **options: Any) -> Tensor:
    if layer.disable_adapters or layer.merged or arguments or options:
        output: Tensor = otherwise(inputs, *arguments, **options)
        return output
    (name,) = layer.active_adapters
    base = layer.base_layer
    answer: Tensor = LowRankLinear.apply(  # type: ignore[no-untyped-call]
        inputs, base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    )
    return answer
