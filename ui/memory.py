"""The most memory that this process and all that it started used together."""

import os
import threading
import time
from types import TracebackType

import psutil


def tree_bytes() -> int:
    """Proportional set sizes of this process and its descendants: shared pages are counted once."""
    me = psutil.Process(os.getpid())
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It ended between the listing and the look.
            continue
    return total


LOOKS_SHARE = 0.05
"""Of the time, at most, that is spent looking: Linux walks through every page that a process has."""


class PeakMemory:
    """Samples the process tree while inside `with`; `peak_bytes` is the largest sum seen."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.peak_bytes = 0
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            self.peak_bytes = max(self.peak_bytes, tree_bytes())
            if self._ended.wait(max(self._interval_s, (time.monotonic() - began) / LOOKS_SHARE)):
                return
