"""Checkpoints are kept while training goes on.

At a step a worker writes its files to a local disk; a thread then hashes and uploads them, the manifest last.
One is on its way at a time. What fails is told and tried again with the next checkpoint: training goes on.
"""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.training.checkpoints import CheckpointStore

POLL_S = 0.1
TRIES = 3
"""Times that what failed is tried again before a run ends."""
PAUSE_S = 2.0
"""Before each of them."""


class Uploads:
    """One worker's checkpoints on their way; rank 0 also deletes what is no longer wanted."""

    def __init__(
        self,
        store: CheckpointStore,
        rank: int,
        world: int,
        attempt: str,
        tell: Callable[..., None],
    ) -> None:
        self._store, self._rank, self._world, self._attempt = store, rank, world, attempt
        self._tell = tell
        """Called as `tell(kind, step=..., ...)`, from the thread."""
        self._waiting: dict[int, Path] = {}
        self._problem: dict[int, str] = {}
        self._told = max(store.complete(), default=0) if rank == 0 else 0
        self._best = 0
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()

    def write(self, step: int, best: int, files: Callable[[Path], Any]) -> None:
        """Let `files` write this worker's files into a folder, and keep them in the background.

        Waits until the checkpoint before is on its way no more.
        """
        self.wait()
        self._best = best
        # An older one that failed is worth another try only when it holds the best weights.
        for old in set(self._waiting) - {best}:
            self._drop(old)
        try:
            self._waiting[step] = self._store.scratch(step, self._rank)
            files(self._waiting[step])
        except OSError as error:
            # The disk is full, or away: told like an upload that failed.
            self._failed(step, error)
            if step in self._waiting:
                self._drop(step)
            return
        self._thread = threading.Thread(target=self._work, name=f"checkpoint-{step}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until this worker has nothing on its way."""
        if self._thread is not None:
            self._hurry.set()
            self._thread.join()
            self._hurry.clear()
            self._thread = None

    def drain(self) -> str | None:
        """Wait, trying again what failed; what still stands in the way of the newest checkpoint, or None."""
        self.wait()
        for _ in range(TRIES):
            if not self._waiting:
                break
            time.sleep(PAUSE_S)
            self._upload()
        return self._problem.get(max(self._problem)) if self._problem else None

    def settle(self) -> bool:
        """On rank 0: tell of the newest checkpoint once every worker's manifest is there, and delete older ones.

        False while there is more to come.
        """
        try:
            return self._settle()
        except Exception:
            # A listing or a deletion that failed is done again with the next checkpoint.
            return True

    def _settle(self) -> bool:
        complete = self._store.complete()
        newest = max(complete, default=0)
        if newest <= self._told:
            return False
        # The best, the last, and the one before: should the last be damaged, little is lost. As long as the best is
        # not there itself, the one that was best before it stays.
        if self._best == 0 or self._best in complete:
            self._store.keep_only({*complete[-2:], self._best})
        self._told = newest
        self._tell("checkpoint", step=newest)
        return True

    def _work(self) -> None:
        if self._rank == 0:
            # The one before: this thread's own may be overtaken by the next before every worker has kept it.
            self.settle()
        self._upload()
        while self._rank == 0 and not self.settle() and not self._hurry.wait(POLL_S):
            pass

    def _upload(self) -> None:
        for step, folder in sorted(self._waiting.items()):
            try:
                self._store.save(step, folder, self._rank, self._world, self._attempt)
            except Exception as error:
                self._failed(step, error)
            else:
                del self._waiting[step]
                # An older one that was not kept no longer matters.
                self._problem = {other: problem for other, problem in self._problem.items() if other > step}

    def _failed(self, step: int, error: Exception) -> None:
        self._problem[step] = f"{type(error).__name__}: {error}"
        self._tell("not_kept", step=step, rank=self._rank, problem=self._problem[step])

    def _drop(self, step: int) -> None:
        shutil.rmtree(self._waiting.pop(step), ignore_errors=True)
