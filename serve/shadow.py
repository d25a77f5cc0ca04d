"""Shadow traffic: another arm answers the same prompts, and nobody sees it.

After the user's own answer, so that it takes nothing from it; a few at a time, and what finds no room is counted.
"""

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from serve.assignment import place
from serve.hosting import Generator, Piece, Refused, Started
from serve.interactions import InteractionLog
from serve.metrics import Metrics

if TYPE_CHECKING:
    from serve.service import Hosted, Turn

AT_ONCE = 4


class Shadow:
    """The shadows of one gateway."""

    def __init__(self, engine: Generator, log: InteractionLog, metrics: Metrics, hosted: "Hosted") -> None:
        self._engine, self._log, self._metrics, self._hosted = engine, log, metrics, hosted
        self._running: set[asyncio.Task[None]] = set()

    def follow(self, turn: "Turn") -> None:
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

    async def _answer(self, turn: "Turn", arm: str) -> None:
        text: list[str] = []
        version = None
        tokens, prompt_tokens, first_ms, finish, started = 0, 0, None, "error", time.monotonic()
        try:
            async with aclosing(self._engine.answer(arm, turn.prompt, turn.options)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Refused):
                        self._metrics.shadowed(arm, "refused")
                        return
                    if isinstance(event, Started):
                        prompt_tokens, version = event.prompt_tokens, event.version or None
                        continue
                    assert isinstance(event, Piece)
                    text.append(event.text)
                    tokens += event.tokens
                    first_ms = first_ms or round(1000 * (time.monotonic() - started), 3)
                    finish = event.finish_reason or finish
        except Exception:
            # The engine died: the log says so below, and nobody waits for this answer.
            finish = "error"
        done = finish in ("stop", "length")
        self._metrics.shadowed(arm, "answered" if done else "failed")
        self._log.add(
            keep_text=self._hosted.log_prompts,
            request_id=f"shadow-{turn.request_id}"[:255],
            recipe_name=self._hosted.recipe_name,
            unit=turn.unit,
            arm=arm,
            model=self._hosted.models[arm],
            messages={turn.place: turn.prompt},
            answer="".join(text),
            finish_reason=finish,
            prompt_tokens=prompt_tokens,
            completion_tokens=tokens,
            first_token_ms=first_ms,
            total_ms=round(1000 * (time.monotonic() - started), 3),
            status=200 if done else 500,
            shadow_of=turn.request_id,
            model_version=version,
        )
