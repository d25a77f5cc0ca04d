"""Writing interactions down without making anyone wait: a bounded queue and a thread."""

import atexit
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from pipelines.workspace import Workspace

logger = logging.getLogger("sluice.serve")

MAX_QUEUED = 10_000
BATCH = 200
GATHER_S = 0.5
"""How long rows wait for others: what a batch costs (its transaction, a pattern to compile) hardly grows with it."""


class InteractionLog:
    """Rows go in at once and reach the database a moment later; what is lost is counted."""

    def __init__(self, workspace: Workspace, max_queued: int = MAX_QUEUED) -> None:
        self._workspace = workspace
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(max_queued)
        self.lost = 0
        """Rows that found the queue full, the log closed, or the database closed to them."""
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="interactions", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, *, keep_text: bool | Literal["masked"] = True, **columns: Any) -> None:
        """Queue a row of `InteractionRow`; counted as lost when there is no room, or after `close`.

        Without `keep_text` the prompt and the answer are not written: only whether the answer declines. `masked`: they
        are, without personal data and secrets.
        """
        columns["keep_text"] = keep_text
        with self._lock:
            if not self._closing.is_set():
                try:
                    self._queue.put_nowait(columns)
                    return
                except queue.Full:
                    pass
        self._lose(1)

    def close(self, timeout_s: float = 30) -> None:
        """Write what waits, and stop; what still waits then is counted as lost. A second call does nothing."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        atexit.unregister(self.close)
        deadline = time.monotonic() + timeout_s
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            pass
        else:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._abandon()
        if self.lost:
            logger.warning("%d interactions were lost", self.lost)

    def _abandon(self) -> None:
        """Take what waits from a writer that hangs, so that it ends should it wake up."""
        with contextlib.suppress(queue.Empty):
            while True:
                if self._queue.get_nowait() is not None:
                    self._lose(1)
        self._queue.put(None)

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost += count

    def _work(self) -> None:
        while True:
            rows = [self._queue.get()]
            if self._queue.qsize() < BATCH:
                self._closing.wait(GATHER_S)
            while len(rows) < BATCH and rows[-1] is not None:
                try:
                    rows.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            self._write([row for row in rows if row is not None])
            if rows[-1] is None:
                return

    def _write(self, rows: list[dict[str, Any]]) -> None:
        from sqlalchemy import insert

        from pipelines.records import InteractionRow

        if not rows:
            return
        try:
            made = list(_looked_at(rows))
            with self._workspace.session() as session:
                # With its nulls a row has every column, and all go as one statement.
                session.execute(insert(InteractionRow), made, execution_options={"render_nulls": True})
        except Exception as error:
            if len(rows) == 1:
                self._lose(1)
                logger.warning("an interaction could not be written (%d lost): %s", self.lost, type(error).__name__)
                return
            # One bad row must not take its neighbours with it.
            for row in rows:
                self._write([row])


def _looked_at(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The columns of each row, with whether its answer declines, and without text that is not to be kept."""
    from pipelines.data.anomaly.refusals import declines

    declined = declines([row.get("answer") or "" for row in rows]).to_pylist()
    for row, refuses in zip(rows, declined, strict=True):
        columns = {name: value for name, value in row.items() if name != "keep_text"}
        if not row["keep_text"]:
            columns |= {"messages": None, "answer": None}
        elif row["keep_text"] == "masked":
            columns |= {"messages": _masked(row.get("messages")), "answer": _masked(row.get("answer"))}
        yield columns | {"declined": bool(refuses)}


def _masked(value: Any) -> Any:
    """The same with every text in it masked."""
    from pipelines.data.privacy.private import mask_private

    if isinstance(value, str):
        return mask_private(value)
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    return value
