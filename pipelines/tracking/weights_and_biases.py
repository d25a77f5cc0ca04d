"""A run's figures in W&B, beside MLflow: an extra, whose key comes from its own environment or login."""

import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.errors import UserError

PROJECT = "sluice"
INIT_S = 20.0
"""Wait for W&B's servers at the start; then the run is kept on disk."""
FINISH_S = 60.0
"""Wait for the last points to go out at the end."""


def check_installed() -> None:
    """Raise UserError when the package is missing: before training, not after hours of it."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            "train.report_to names wandb, which is not installed.", "Install it with `pip install sluice[wandb]`."
        )


class Mirror:
    """One run; nothing that ails W&B is a reason not to train, and what it cannot send stays in its folder."""

    def __init__(self, name: str, tags: dict[str, str], params: dict[str, Any]) -> None:
        self._run: Any = None
        # WANDB_MODE=offline keeps the run on disk from the start.
        modes = (os.environ.get("WANDB_MODE") or "online", "offline")
        for mode in dict.fromkeys(modes):
            if self._run is None:
                self._run = self._safely(partial(_begin, name, tags, params, mode))

    def log(self, metrics: dict[str, float], step: int, at: float) -> None:
        """Add the values of one step, which were so at a unix time in seconds."""
        if self._run is not None:
            # A step of our own: W&B refuses its own to go back, and a resumed run repeats some.
            self._safely(lambda: self._run.log({**metrics, "step": step, "_timestamp": at}))

    def end(self, status: str) -> None:
        """Mark the end and wait a while for what is still to be sent."""
        if self._run is None:
            return
        code = 0 if status == "FINISHED" else 1
        waiting = threading.Thread(target=self._safely, args=(lambda: self._run.finish(exit_code=code),), daemon=True)
        waiting.start()
        waiting.join(FINISH_S)
        if waiting.is_alive():
            logging.getLogger(__name__).warning("W&B has not taken every point: `wandb sync %s`.", self._run.dir)

    def _safely(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            logging.getLogger(__name__).warning("W&B: %s", error)
            return None


def _begin(name: str, tags: dict[str, str], params: dict[str, Any], mode: Any) -> Any:
    import wandb

    folder = Path(os.environ.get("WANDB_DIR") or Path.home() / ".sluice")
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=PROJECT,
        # Named by what it reads: the same command goes on in the same run.
        id=name,
        name=name,
        resume="allow",
        config=params | tags,
        dir=folder,
        mode=mode,
        settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_S),
    )
    run.define_metric("*", step_metric="step")
    return run
