"""One training as it goes on: its points to MLflow always, to W&B when asked; neither is a reason to stop."""

import logging
import time
from typing import Any

from cluster.settings import Settings
from pipelines.tracking import runs


class LiveRun:
    """A tracked run that may begin while the server is away: its points wait, with their own steps and times."""

    def __init__(
        self, settings: Settings, name: str, tags: dict[str, str], params: dict[str, Any], *, wandb: bool = False
    ) -> None:
        self._settings, self._name, self._tags, self._params = settings, name, tags, params
        self._waiting: list[tuple[dict[str, float], int, float]] = []
        self._retry_at = 0.0
        self.run_id = ""
        """MLflow's id; empty while the server has not been reached."""
        self._open()
        self._mirror = None
        if wandb:
            from pipelines.tracking.weights_and_biases import Mirror

            self._mirror = Mirror(name, tags, params)

    def log(self, metrics: dict[str, float], step: int, at: float) -> None:
        """Add the values of one step, which were so at a unix time in seconds."""
        if not metrics:
            return
        if self._open():
            runs.log_metrics(self._settings, self.run_id, metrics, step, at)
        else:
            self._waiting.append((metrics, step, at))
            del self._waiting[: -runs.MAX_PENDING]
        if self._mirror:
            self._mirror.log(metrics, step, at)

    def end(self, status: str = "FINISHED") -> None:
        """Mark the end: FINISHED, FAILED or KILLED."""
        self._retry_at = 0.0
        if self._open():
            runs.end_run(self._settings, self.run_id, status)
        elif self._waiting:
            logging.getLogger(__name__).warning(
                "%d points are lost: the tracking server was never reached.", len(self._waiting)
            )
        if self._mirror:
            self._mirror.end(status)

    def _open(self) -> bool:
        """Whether MLflow has the run; it is begun when its server is back, and gets what waited."""
        if not self.run_id and time.monotonic() >= self._retry_at:
            self.run_id = runs.start_run(self._settings, self._name, self._tags, self._params)
            self._retry_at = time.monotonic() + runs.RETRY_S
            if self.run_id:
                for metrics, step, at in self._waiting:
                    runs.log_metrics(self._settings, self.run_id, metrics, step, at)
                self._waiting.clear()
        return bool(self.run_id)
