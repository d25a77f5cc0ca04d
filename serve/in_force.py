"""What decides about the next request: the newest reading of the log, about the version that the engine has.

Log and engine differ while a promoted version is loaded. Until the engine has it, what was decided about the version
that answers goes on, and no experiment counts.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from pipelines.workspace import Workspace
from serve.engines import version_in_force
from serve.traffic import Traffic, TrafficWatch, read_traffic

logger = logging.getLogger("sluice.serve")

ASK_S = 0.5
"""How often the engine is asked what it has while the log names another version, and how long that may take."""


class InForce:
    """The reading that counts, for one gateway."""

    def __init__(
        self, workspace: Workspace, recipe_name: str, version: str, health: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        """`version` is what the engine had at the start; empty for an engine that follows no log."""
        self.version, self._health = version, health
        self.watch = TrafficWatch(lambda: read_traffic(workspace, recipe_name, self.version))
        self._asked, self._asking = -math.inf, asyncio.Lock()
        self._doubted = False

    async def traffic(self) -> Traffic:
        """What counts now. Raises RequestError 503 while nothing could be read at all."""
        traffic = self.watch.latest
        if traffic is None:
            traffic = await asyncio.to_thread(self.watch.current)
        if not self.version:
            return traffic
        if self._doubted or traffic.newest not in (None, self.version):
            await self._ask(traffic.newest)
        if traffic.model_version == self.version:
            return traffic
        # The engine has just switched, and the next reading will be about what it has.
        self.watch.hurry()
        return replace(traffic, experiment=None)

    def answered(self, version: str) -> None:
        """Take note of the version that gave an answer: it may be another than the engine was known to have."""
        self._doubted = self._doubted or version != self.version

    async def _ask(self, newest: str | None) -> None:
        """Learn what the engine has: one request asks, those beside it wait for what it learns."""
        async with self._asking:
            if time.monotonic() < self._asked + ASK_S:
                return
            self._asked = time.monotonic()
            try:
                found = await asyncio.wait_for(self._health(), ASK_S)
            except Exception as error:
                logger.warning("the engine's version is not known at present: %s", type(error).__name__)
                return
            self.version, self._doubted = version_in_force(found, newest) or self.version, False
