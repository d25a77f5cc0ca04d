"""torch.compile for training: the layers, each by itself."""

from typing import Any

from cluster.errors import UserError


def compile_layers(model: Any, backend: str = "inductor") -> None:
    """Let each of the model's layers be compiled at its first call, once for all lengths.

    Not the model as a whole: how it keeps the examples of a row apart depends on what the positions hold, which
    transformers only looks at outside of a compiled graph. Equal layers share one compilation. Raises UserError for a
    model whose layers cannot be told.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError("train.torch_compile: the layers of this base cannot be told.", "Set it to false.")
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
