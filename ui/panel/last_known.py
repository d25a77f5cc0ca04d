"""What was last read, and when: a source that is away leaves its last known state on the page, with its age."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from cluster.errors import UserError

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Why the present state could not be read, and what to do."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Known(Generic[T]):
    """A value with the time it was read at, and the problem that keeps it from being newer."""

    value: T | None
    """None: never read successfully."""
    read_at: datetime | None
    problem: Problem | None = None


class LastKnown:
    """Reads with a deadline and remembers; one per process, so that a reload or a second tab finds the same.

    A read that is late goes on in its thread, and nobody starts a second one of the same key beside it.
    """

    def __init__(self, *, deadline_s: float = 10.0, capacity: int = 256) -> None:
        self._deadline_s = deadline_s
        self._capacity = capacity
        self._values: OrderedDict[Hashable, tuple[Any, datetime]] = OrderedDict()
        self._running: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def read(
        self, key: Hashable, what: str, remedy: str, read: Callable[[], T], *, deadline_s: float | None = None
    ) -> Known[T]:
        """What `read` returns, or what it last returned under `key` with the problem beside it."""
        patience = self._deadline_s if deadline_s is None else deadline_s
        future = self._start(key, read)
        try:
            value: T = future.result(timeout=patience)
        except FutureTimeoutError:
            return self._stale(key, Problem(f"{what} did not answer within {patience:g} s.", remedy))
        except Exception as error:
            # Whatever a library raises when its server is away.
            return self._stale(key, problem_of(error, what, remedy))
        with self._lock:
            return Known(value, self._values[key][1] if key in self._values else datetime.now(UTC))

    def clear(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._values.clear()

    def _start(self, key: Hashable, read: Callable[[], T]) -> "Future[T]":
        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running
            future: Future[T] = Future()
            self._running[key] = future
        # A daemon thread, not a pool: a read that hangs must keep neither the process nor the next read waiting.
        threading.Thread(target=self._run, args=(key, future, read), daemon=True).start()
        return future

    def _run(self, key: Hashable, future: "Future[T]", read: Callable[[], T]) -> None:
        try:
            value = read()
        except BaseException as error:
            self._forget_running(key)
            future.set_exception(error)
        else:
            # Kept even when nobody waits any longer: the next look finds it.
            with self._lock:
                self._values[key] = (value, datetime.now(UTC))
                self._values.move_to_end(key)
                while len(self._values) > self._capacity:
                    self._values.popitem(last=False)
            self._forget_running(key)
            future.set_result(value)

    def _forget_running(self, key: Hashable) -> None:
        with self._lock:
            self._running.pop(key, None)

    def _stale(self, key: Hashable, problem: Problem) -> Known[Any]:
        with self._lock:
            value, read_at = self._values.get(key, (None, None))
        return Known(value, read_at, problem)


def problem_of(error: Exception, what: str, remedy: str) -> Problem:
    """An error as a sentence with a remedy for the page; what is unforeseen goes to the log whole."""
    if isinstance(error, UserError):
        return Problem(error.message, error.remedy or remedy)
    log.warning("%s failed", what, exc_info=error)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Problem(f"{what} cannot be read: {first if len(first) <= 200 else first[:199] + '…'}", remedy)
