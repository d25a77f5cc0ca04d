"""Shadow traffic: another arm answers the same prompts, and nobody sees it.

After the user's own answer, so that it takes nothing from it; a few at a time, and what finds no room is counted.
"""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from serve.assignment import place
from serve.hosting import Generator, Refused, Started
from serve.interactions import InteractionLog
from serve.metrics import Metrics
from serve.tracing import Tracing
from serve.turn import Turn, milliseconds

if TYPE_CHECKING:
    from serve.service import Hosted

AT_ONCE = 4


class Shadow:
    """The shadows of one gateway."""

    def __init__(
        self, engine: Generator, log: InteractionLog, metrics: Metrics, hosted: "Hosted", tracing: Tracing | None
    ) -> None:
        self._engine, self._log, self._metrics, self._hosted = engine, log, metrics, hosted
        self._tracing = tracing
        self._running: set[asyncio.Task[None]] = set()

    def follow(self, turn: Turn) -> None:
        """Let the other arm answer too, if the request is one of the share."""
        if self._hosted.shadow <= 0 or place(f"shadow:{self._hosted.seed}", turn.request_id) >= self._hosted.shadow:
            return
        arm = next(other for other in self._hosted.models if other != turn.arm)
        if len(self._running) >= AT_ONCE:
            self._metrics.shadowed(arm, "no_room")
            return
        task = asyncio.get_running_loop().create_task(self._answer(turn, arm))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, turn: Turn, arm: str) -> None:
        shadow = Turn(
            f"shadow-{turn.request_id}"[:255],
            turn.unit,
            arm,
            self._hosted.models[arm],
            turn.prompt,
            turn.place,
            replace(turn.options, logprobs=None, read_along=False),
            trace=turn.trace,
            shadow_of=turn.request_id,
        )
        try:
            async with aclosing(self._engine.answer(arm, shadow.prompt, shadow.options)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Refused):
                        self._metrics.shadowed(arm, "refused")
                        return
                    if isinstance(event, Started):
                        shadow.begin(event)
                    else:
                        shadow.note(event)
        except Exception:
            # The engine died: the log says so below, and nobody waits for this answer.
            shadow.finish_reason = "error"
        done = shadow.finish_reason in ("stop", "length")
        shadow.status = 200 if done else 500
        self._metrics.shadowed(arm, "answered" if done else "failed")
        total_ms = milliseconds(shadow.started, time.monotonic())
        self._log.add(keep_text=self._hosted.log_prompts, recipe_name=self._hosted.recipe_name, **shadow.row(total_ms))
        if self._tracing is not None:
            self._tracing.add(shadow)
