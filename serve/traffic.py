"""Who gets which arm at present: what the deployment log and the running experiment say, read anew all the time.

The log is the switch: nobody tells a gateway anything, it reads. While the database is away the last reading counts.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines.workspace import Workspace
from serve.errors import RequestError

logger = logging.getLogger("sluice.serve")

FOLLOW_S = 2.0
"""Seconds between two readings."""
FIRST_S = 5.0
"""Seconds for which requests wait for the first one."""


@dataclass(frozen=True)
class Running:
    """What a gateway must know of the experiment that runs."""

    id: int
    seed: str
    weights: Mapping[str, float]
    control: str
    coverage: float
    paused: bool


@dataclass(frozen=True)
class Traffic:
    """What is in force."""

    deployment: int | None
    """Number of the row of the log."""
    model_version: str | None
    """The registered version that all of this is about."""
    weights: Mapping[str, float] | None
    """Arm -> weight where an experiment has decided; None: those of the recipe."""
    experiment: Running | None
    newest: str | None = None
    """The version in production: another one while the engine loads it."""


def read_traffic(workspace: Workspace, recipe_name: str, hosted: str = "") -> Traffic:
    """What the database says now of the version that is hosted; without one, of the one in production.

    While another is in production than is hosted, what was last decided about the hosted one goes on. That the base
    serves everyone holds for any version.
    """
    from pipelines.tracking import deployments
    from serve.experimentation import lifecycle

    # In this order: what ends an experiment between the two is seen as its deployment, never as neither.
    row, newest = lifecycle.live(workspace, recipe_name), deployments.current(workspace, recipe_name)
    if newest is None:
        return Traffic(None, hosted or None, None, None)
    decided = deployments.traffic_of(newest)
    if hosted not in ("", newest.model_version):
        if decided is None or decided.get("tuned"):
            earlier = deployments.current(workspace, recipe_name, hosted)
            decided = None if earlier is None else deployments.traffic_of(earlier)
        return Traffic(newest.id, hosted, decided, None, newest.model_version)
    running = None
    # One that tried what is no longer in production is over, whether or not the watcher has written so.
    if row is not None and row.deployment_id == newest.id:
        section = lifecycle.section_of(row)
        weights = {str(arm): weight for arm, weight in section.weights.items()}
        paused = row.state != lifecycle.RUNNING
        running = Running(row.id, row.seed, weights, section.control, row.coverage, paused)
    return Traffic(newest.id, newest.model_version, decided, running, newest.model_version)


class TrafficWatch:
    """The newest reading, taken by a thread from the first question on."""

    def __init__(self, read: Callable[[], Traffic], every_s: float = FOLLOW_S) -> None:
        self._read, self._every_s = read, every_s
        self._latest: Traffic | None = None
        self._first, self._wake = threading.Event(), threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def current(self) -> Traffic:
        """The newest reading; call it from a thread, the first one takes its time.

        Raises RequestError 503 while there has been none.
        """
        self._begin()
        if not self._first.wait(FIRST_S) or self._latest is None:
            raise RequestError(
                503,
                "What is in production cannot be read at present; try again in a moment.",
                code="traffic_unknown",
                headers={"Retry-After": "2"},
            )
        return self._latest

    @property
    def latest(self) -> Traffic | None:
        """The newest reading, if there is one; never waits."""
        self._begin()
        return self._latest

    def hurry(self) -> None:
        """Let the next reading be now."""
        self._wake.set()

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._wake.set()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="traffic", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                self._latest = self._read()
                self._first.set()
            except Exception as error:
                logger.warning("what is in production could not be read: %s", type(error).__name__)
            self._wake.wait(self._every_s)
