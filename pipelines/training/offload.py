"""ZeRO's offload: what DeepSpeed is told, and what a disk needs."""

import os
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.recipe import DeepSpeed


def offload_config(deepspeed: DeepSpeed) -> dict[str, Any]:
    """The offload sections of DeepSpeed's `zero_optimization`; empty when nothing is offloaded."""
    found = {}
    for name in ("offload_optimizer", "offload_param"):
        if (device := getattr(deepspeed, name)) != "none":
            found[name] = {"device": device} | ({"nvme_path": deepspeed.nvme_path} if device == "nvme" else {})
    return found


def check_offload(deepspeed: DeepSpeed) -> None:
    """Raise UserError when this machine cannot offload to its disk: the folder, or DeepSpeed's asynchronous I/O."""
    if not deepspeed.uses_nvme:
        return
    folder = Path(str(deepspeed.nvme_path))
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(
            f"train.deepspeed.nvme_path: {folder} is no folder of this worker's machine that can be written.",
            "Mount a fast local disk there on every node, or offload to cpu.",
        )
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise UserError(
            "train.deepspeed: offloading to nvme needs the library libaio, which this worker's machine lacks.",
            "Install it with its headers on every node (Debian, Ubuntu: libaio-dev), or offload to cpu.",
        )
