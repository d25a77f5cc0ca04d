"""An adapter merged into its base: summed in 32 bits, kept in the base's own dtype, and compared with what it was."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.errors import StageFailed, UserError
from pipelines.models.files import check_weights, read_json
from pipelines.models.load import quiet_transformers

SHARD = "4GB"
"""Largest file of merged weights: what a hub and a slow line can still carry."""

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far logits may move, relative to the largest: rounding of the weights to so many bits, and no more."""

PROBE = "Say in one sentence what you were trained to do."


@dataclass(frozen=True)
class Likeness:
    """How near a model's logits are to those of what it was made from, on one prompt."""

    largest_difference: float
    """Of any logit."""
    largest_logit: float
    """Of the original, by magnitude."""
    tolerance: float
    """How much of the largest logit a difference may be."""
    loss_of_effect: float = 0.0
    """Root mean square of the difference, as a share of what the adapter changed; 1 is as far off as the base."""

    @property
    def holds(self) -> bool:
        """Whether it is the same model but for rounding; a NaN is not."""
        near = self.largest_difference <= self.tolerance * self.largest_logit
        return near and self.loss_of_effect < 1


def merge_adapter(base_folder: Path, adapter_folder: Path, target: Path, prompt: list[int]) -> Likeness:
    """Write the merged model into `target`; how near it is to base and adapter on the tokens of `prompt`.

    One copy of the weights is in memory, and one layer of it in 32 bits. Raises UserError for a base that is
    quantised, StageFailed when what was written answers otherwise.
    """
    from peft import PeftModel

    if read_json(base_folder / "config.json").get("quantization_config"):
        raise UserError(
            f"{base_folder}: its weights are quantised, and an adapter cannot be merged into them without loss.",
            "Export the adapter, or train over the unquantised base.",
        )
    with quiet_transformers():
        model: Any = PeftModel.from_pretrained(load_weights(base_folder), str(adapter_folder))
        with model.disable_adapter():
            without = logits(model, prompt)
        expected = logits(model, prompt)
        for layer in adapted_layers(model):
            merge_in_float32(layer)
        with warnings.catch_warnings():
            # Merged already, as it says: what is left is to take PEFT's layers out, and in what was trained whole.
            warnings.simplefilter("ignore")
            model = model.merge_and_unload()
        model.save_pretrained(target, max_shard_size=SHARD)
        del model
        gc.collect()
    check_weights(target)
    likeness = compare(logits(load_weights(target), prompt), expected, TOLERANCES[dtype_of(target)], without)
    if not likeness.holds:
        raise StageFailed(
            f"The merged model does not answer as base and adapter do: on one prompt a logit differs by "
            f"{likeness.largest_difference:.3g} (the largest is {likeness.largest_logit:.3g}), and "
            f"{likeness.loss_of_effect:.0%} of what the adapter changes is lost to rounding.",
            "Export the adapter instead (--format adapter): it loses nothing.",
        )
    return likeness


def load_weights(folder: Path, gguf_file: str | None = None) -> Any:
    """The model in `folder` (or in a GGUF file there), ready to answer; no code of its own is run.

    In the dtype that it is stored in; what a GGUF file holds, in 32 bits.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GgufConfig

    where: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **where)
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        how = {"dtype": "auto", "use_safetensors": True}
        if gguf_file:
            how = where | {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
        model = kind.from_pretrained(folder, trust_remote_code=False, **how)
    return model.eval()


def dtype_of(folder: Path) -> str:
    """The dtype that the model in `folder` is stored in."""
    config = read_json(folder / "config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def adapted_layers(model: Any) -> list[Any]:
    """PEFT's layers over weights of the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def merge_in_float32(layer: Any) -> None:
    """Merge the adapter of one layer into its weights. Raises StageFailed when the result is no number.

    In the base's 16 bits the product of the adapter's matrices would be rounded before it is added.
    """
    base = layer.get_base_layer()
    dtype = next(base.parameters()).dtype
    layer.to(torch.float32)
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise StageFailed(
            f"The adapter cannot be merged: {str(error).splitlines()[0]}", "Lower train.learning_rate and train again."
        ) from None
    base.to(dtype)


@torch.no_grad()
def logits(model: Any, prompt: list[int]) -> torch.Tensor:
    """(positions, vocabulary), computed in 32 bits whatever the weights are kept in."""
    tokens = torch.tensor([prompt])
    # A decoder of its own begins somewhere: with the same tokens, both halves are compared.
    inputs = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with computing_in_float32(model):
        found: torch.Tensor = model(input_ids=tokens, **inputs).logits[0]
    return found


@contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """Each layer's weights are widened while it computes, and narrowed again: nothing of them is lost by that.

    What is compared is the rounding of weights alone, not that of activations; and many CPUs have no quick
    arithmetic in 16 bits.
    """
    hooks, kept = [], {}

    def widen(module: Any, args: Any, kwargs: Any) -> Any:
        kept[module] = {name: p.dtype for name, p in module._parameters.items() if p is not None and narrow(p)}
        for name in kept[module]:
            module._parameters[name].data = module._parameters[name].data.float()
        wide = {name: value.float() if narrow(value) else value for name, value in kwargs.items()}
        return tuple(value.float() if narrow(value) else value for value in args), wide

    def restore(module: Any, *_: Any) -> None:
        for name, dtype in kept.pop(module).items():
            module._parameters[name].data = module._parameters[name].data.to(dtype)

    for module in model.modules():
        if module._parameters:
            hooks.append(module.register_forward_pre_hook(widen, with_kwargs=True))
            hooks.append(module.register_forward_hook(restore))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def narrow(value: Any) -> bool:
    """Whether it is a tensor of 16 bits."""
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def compare(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float, without: torch.Tensor | None = None
) -> Likeness:
    """How near `found` is to `expected`; `without` are the logits before what has to show in both."""
    difference = found - expected
    lost = 0.0
    if without is not None and (effect := float((expected - without).square().mean())) > 0:
        lost = (float(difference.square().mean()) / effect) ** 0.5
    return Likeness(
        largest_difference=float(difference.abs().max()),
        largest_logit=float(expected.abs().max()),
        tolerance=tolerance,
        loss_of_effect=lost,
    )
