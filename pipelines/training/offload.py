"""ZeRO's offload: what DeepSpeed is told, and the folder of a worker whose state waits on a disk."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.operators import load_disk_operators
from pipelines.recipe import DeepSpeed


def offload_sections(deepspeed: DeepSpeed, folder: Path | None) -> dict[str, Any]:
    """The offload sections of DeepSpeed's `zero_optimization`; `folder`: where what goes to `nvme` waits."""
    sections: dict[str, Any] = {}
    for kind in ("offload_optimizer", "offload_param"):
        if (device := getattr(deepspeed, kind)) != "none":
            assert folder is not None or device != "nvme"
            sections[kind] = {"device": device} | ({"nvme_path": str(folder)} if device == "nvme" else {})
    return sections


def open_folder(deepspeed: DeepSpeed, run: str, rank: int) -> Path | None:
    """An empty folder for what this worker offloads to its disk; None when nothing is.

    It is named by run and worker, so that what a killed worker left is cleared by the next. Raises UserError when this
    machine cannot offload to a disk.
    """
    if deepspeed.nvme_path is None:
        return None
    root = Path(deepspeed.nvme_path)
    if not (root.is_dir() and os.access(root, os.W_OK)):
        raise UserError(
            f"train.deepspeed.nvme_path: {root} is no folder of this worker's machine that can be written.",
            "Mount a fast local disk there on every node, or offload to cpu.",
        )
    load_disk_operators()
    folder = root / f"sluice-{run}" / f"worker-{rank}"
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"train.deepspeed.nvme_path: {folder} cannot be made anew: {error.strerror}.",
            "See to the rights and the space of that disk on every node, or offload to cpu.",
        ) from error
    return folder


def close_folder(folder: Path | None) -> None:
    """Delete a worker's folder, and the run's after the last of its workers."""
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    # Other workers' folders may still be there, or be going at this moment.
    with suppress(OSError):
        folder.parent.rmdir()
