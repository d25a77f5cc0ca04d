"""Writing interactions down without making anyone wait: a bounded queue and a thread."""

import logging
import queue
import threading
from typing import Any

from pipelines.workspace import Workspace

logger = logging.getLogger("sluice.serve")

MAX_QUEUED = 10_000
BATCH = 200


class InteractionLog:
    """Rows go in at once and reach the database a moment later; what is lost is counted."""

    def __init__(self, workspace: Workspace, max_queued: int = MAX_QUEUED) -> None:
        self._workspace = workspace
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(max_queued)
        self.lost = 0
        """Rows that found the queue full or the database closed to them."""
        self._thread = threading.Thread(target=self._work, name="interactions", daemon=True)
        self._thread.start()

    def add(self, **columns: Any) -> None:
        """Queue a row of `InteractionRow`; counted as lost when there is no room."""
        try:
            self._queue.put_nowait(columns)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what waits, and stop."""
        self._queue.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            rows = [self._queue.get()]
            while len(rows) < BATCH and rows[-1] is not None:
                try:
                    rows.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            self._write([row for row in rows if row is not None])
            if rows[-1] is None:
                return

    def _write(self, rows: list[dict[str, Any]]) -> None:
        from pipelines.records import InteractionRow

        if not rows:
            return
        try:
            with self._workspace.session() as session:
                session.add_all(InteractionRow(**row) for row in rows)
        except Exception as error:
            if len(rows) == 1:
                self.lost += 1
                logger.warning("an interaction could not be written (%d lost): %s", self.lost, type(error).__name__)
                return
            # One bad row must not take its neighbours with it.
            for row in rows:
                self._write([row])
