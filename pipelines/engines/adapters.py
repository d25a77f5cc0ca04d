"""What an adapter's folder adds to each layer of a base, read while the base goes on answering."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.errors import UserError, first_line
from pipelines.engines.lora import LowRank, bare_view
from pipelines.models.files import check_safetensors, read_json
from pipelines.models.kind import auto_class

NAME = "read"
"""What PEFT calls the adapter while it is read."""

HARMLESS_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of PEFT's init_lora_weights that leave the base's weights alone; others take from them what the adapter adds,
and the base belongs to every arm."""


def read_adapter(model: nn.Module, folder: str | Path) -> dict[str, LowRank]:
    """Path of a layer in `model` -> what the adapter in `folder` adds to it; `model` itself stays as it is.

    Raises UserError for a folder that holds no whole adapter, for anything but LoRA, rsLoRA and DoRA on linear layers,
    for weights that are not numbers, and for an adapter that does not fit the model.
    """
    from peft import PeftModel

    folder = Path(folder)
    config = check_folder(folder)
    view = bare_view(model)
    try:
        config.inference_mode = True
        peft_model: Any = PeftModel(view, config, NAME, autocast_adapter_dtype=False)
        loaded = peft_model.load_adapter(
            str(folder),
            NAME,
            autocast_adapter_dtype=False,
            key_mapping=getattr(model, "_checkpoint_conversion_mapping", None),
        )
    except Exception as error:  # PEFT has no family of its own, and whatever it stumbles over is the folder's
        raise _unfit(folder, first_line(error)) from None
    # PEFT would go on, with layers that add nothing.
    if loaded.missing_keys:
        raise _unfit(folder, f"it has no weights for {len(loaded.missing_keys)}, such as {loaded.missing_keys[0]}")
    if loaded.unexpected_keys:
        raise _unfit(folder, f"the base has no place for {loaded.unexpected_keys[0]}")
    return low_ranks(view, NAME)


def check_folder(folder: Path) -> Any:
    """PEFT's configuration of the adapter in `folder`.

    Raises UserError for a folder that holds no whole adapter, for weights that are not numbers, and for what cannot be
    served beside its base.
    """
    from peft import PeftConfig

    _check_files(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # PEFT has no family of its own
        raise _unfit(folder, first_line(error)) from None
    _check_kind(folder, config)
    _check_numbers(folder)
    return config


def linear_layers(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Path of each linear layer of the model in `folder` -> (features out, features in); no weights are read."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with torch.device("meta"):
        model = auto_class(folder).from_config(config)
    return {
        path: (module.out_features, module.in_features)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def check_shapes(folder: Path, layers: Mapping[str, tuple[int, int]]) -> None:
    """Raise UserError unless what the adapter in `folder` adds has the shapes of `layers`: see `linear_layers`."""
    from safetensors import safe_open

    check_folder(folder)
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - it is no mapping
            path, _, part = key.removeprefix("base_model.model.").partition(".lora_")
            if path not in layers:
                raise _unfit(folder, f"the base has no place for {path}")
            out_features, in_features = layers[path]
            shape = tensors.get_slice(key).get_shape()
            if (part.startswith("A.") and shape[-1] != in_features) or (
                part.startswith("B.") and shape[0] != out_features
            ):
                raise _unfit(folder, f"{key} is {shape}, and the layer {out_features} x {in_features}")


def low_ranks(model: nn.Module, name: str) -> dict[str, LowRank]:
    """What PEFT's layers in `model` add for the adapter `name`, by their paths.

    Raises UserError for anything but LoRA, rsLoRA and DoRA on linear layers.
    """
    from peft.tuners.lora.layer import Linear as PeftLinear
    from peft.tuners.lora.variants import DoraLinearVariant
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found = {}
    for path, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        if (
            not isinstance(module, PeftLinear)
            or type(module.base_layer) is not nn.Linear
            or not all(isinstance(variant, DoraLinearVariant) for variant in module.lora_variant.values())
            or any(module.lora_bias.values())
        ):
            raise _unserved(path)
        if name in module.lora_A:
            found[path] = low_rank(module, name)
    return found


@torch.no_grad()
def low_rank(layer: Any, name: str) -> LowRank:
    """The same from one layer of PEFT, whose scale is alpha / r, or alpha / sqrt(r) for rsLoRA."""
    weight = layer.base_layer.weight
    down = layer.lora_A[name].weight.detach().to(weight)
    up = layer.lora_B[name].weight.detach().to(weight)
    scaling = layer.scaling[name]
    scaled = (up * scaling).t()
    if not layer.use_dora[name]:
        return LowRank(down, scaled)
    magnitude = layer.lora_magnitude_vector[name].weight.detach().to(weight)
    adapted = weight.float() + scaling * (up.float() @ down.float())
    gain = (magnitude.float() / torch.linalg.norm(adapted, dim=1)).to(weight.dtype)
    return LowRank(down, scaled * gain, gain)


def _check_files(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise UserError(f"{folder}: no {weights.name}.", "An adapter must be saved as safetensors.")
    check_safetensors(weights)
    read_json(folder / "adapter_config.json")


def _check_kind(folder: Path, config: Any) -> None:
    """Raise UserError unless PEFT can read the adapter without a hand on the base's weights."""
    from peft import LoraConfig
    from safetensors import safe_open

    if not isinstance(config, LoraConfig) or config.layer_replication:
        raise _unserved(str(folder))
    if config.init_lora_weights not in HARMLESS_BEGINNINGS:
        raise UserError(
            f"{folder}: its init_lora_weights, {config.init_lora_weights}, changes the base.",
            "Convert it to plain LoRA when it is saved, or train anew with method lora.",
        )
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        # Weights of the base itself, such as a trained embedding, would be written over it.
        if others := [key for key in tensors.keys() if ".lora_" not in key]:  # noqa: SIM118 - it is no mapping
            raise _unserved(f"{folder}: {others[0]}")


def _check_numbers(folder: Path) -> None:
    """Raise UserError for weights of a training that diverged: in vLLM's batch others' answers would go with theirs."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - it is no mapping
            if not torch.isfinite(tensors.get_tensor(key)).all():
                raise UserError(
                    f"{folder}: {key} has weights that are not numbers.",
                    "Its training diverged: train anew with a lower learning rate.",
                )


def _unserved(place: str) -> UserError:
    return UserError(
        f"{place}: only LoRA, rsLoRA and DoRA on linear layers can be served beside their base.",
        "Train with method lora and without biases or modules_to_save.",
    )


def _unfit(folder: Path, reason: str) -> UserError:
    return UserError(f"{folder}: the adapter does not fit this base: {reason}", "Use its own base.")
