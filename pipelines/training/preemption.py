"""Notices that a machine will be taken away: a checkpoint at the next step boundary, before it goes."""

import time
from collections.abc import Callable
from typing import Any

POLL_S = 2.0


class Preemption:
    """What Ray Train says about machines that are about to go.

    `ask` is `ray.train.get_preemption_info`: every worker must call it equally often, so rank 0 says when.
    """

    def __init__(self, ask: Callable[[], Any] | None, rank: int) -> None:
        self._ask, self._rank = ask, rank
        self._asked = time.monotonic()
        self._news = False
        self._leaving: Any = None

    def due(self) -> bool:
        """Whether this worker wants all of them to ask."""
        return self._ask is not None and self._rank == 0 and time.monotonic() - self._asked > POLL_S

    def poll(self) -> None:
        """Ask; on every worker."""
        assert self._ask is not None
        self._asked = time.monotonic()
        info = self._ask()
        if info is not None and (self._leaving is None or info.preempted_node_ids != self._leaving.preempted_node_ids):
            self._leaving, self._news = info, True

    def noticed(self) -> bool:
        """Whether a notice came since the last call."""
        news, self._news = self._news, False
        return news

    def seconds_left(self) -> float | None:
        """Until the first of the machines goes; None when nobody said."""
        deadline = getattr(self._leaving, "deadline_ms", None)
        return None if deadline is None else max(0.0, deadline / 1000 - time.time())
