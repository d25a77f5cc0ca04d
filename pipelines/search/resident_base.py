"""A base model that is loaded once and learnt over by many trials in turn."""

import copy
from pathlib import Path
from typing import Any

from pipelines.models.load import load_model


class ResidentBase:
    """The frozen weights of a base; each trial gets a model of its own around the very same tensors.

    A model's modules are a few hundred small objects and its weights are gigabytes: only the former are copied. So
    the trials' code is that of training, and to turn from one trial to another costs nothing.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], Any] = {}

    def load(self, folder: str | Path, dtype: str = "bfloat16", **options: Any) -> Any:
        """As `load_model`, for a model whose base weights are never trained."""
        key = str(folder), f"{dtype} {sorted(options)}"
        if key not in self._loaded:
            self._loaded[key] = load_model(folder, dtype, **options)
        return shared_copy(self._loaded[key])


def shared_copy(model: Any) -> Any:
    """The same model in modules of its own, its parameters and buffers those of the original."""
    kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, kept)
