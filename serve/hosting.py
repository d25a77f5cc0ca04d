"""The engine deployment: base and adapters in one process, answers streamed piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipelines.models.candidate import Candidate

if TYPE_CHECKING:
    from pipelines.engines.transformers import TransformersEngine
    from serve.following import Follow

Prompt = str | list[dict[str, str]]
"""A text that is continued as it is, or a conversation that is answered."""


@dataclass(frozen=True)
class Options:
    """How to answer, checked already."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Started:
    """The first event of an answer: it was taken on."""

    prompt_tokens: int
    version: str = ""
    """The registered version that answers."""


@dataclass(frozen=True)
class Refused:
    """The only event of a request that was not taken on."""

    reason: Literal["overloaded", "too_long", "conversation"]
    message: str


@dataclass(frozen=True)
class Piece:
    """A piece of an answer; the last one has a finish reason."""

    text: str
    tokens: int
    finish_reason: str | None = None
    error: str = ""


Event = Started | Refused | Piece


class Generator(Protocol):
    """What the gateway needs of the engine deployment."""

    def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """Started and then pieces, or Refused. Closing the iterator cancels."""

    async def health(self) -> dict[str, Any]:
        """`generated_tokens`, `running`, `waiting`; of one that follows the log `version`, `loading`, `trouble` too."""


class EngineReplica:
    """Hosts the candidates; those over the same base share it in memory."""

    def __init__(
        self,
        arms: Mapping[str, Candidate],
        dtype: str,
        max_batch_size: int,
        max_queued_requests: int,
        follow: "Follow | None" = None,
    ) -> None:
        """Load everything and generate a token from each arm: what cannot answer never becomes ready.

        With `follow` the arms are what is in production, from now on and whatever is promoted or rolled back.
        """
        from serve.following import Follower
        from serve.places import Places

        self._places = Places(dtype, max_batch_size, max_queued_requests)
        self._follower = None if follow is None else Follower(follow, self._places)
        if self._follower is None:
            self._places.switch(arms)
        else:
            self._follower.begin(arms)

    def __del__(self) -> None:
        """Called by Ray Serve in the replica's graceful end, after its last request."""
        # An __init__ that failed may leave no follower.
        if follower := getattr(self, "_follower", None):
            follower.close()

    async def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """Started and then pieces, or Refused. When the caller goes away the request leaves the batch.

        All from what the arm has now, whatever it is given meanwhile. Raises KeyError for an arm that has nothing.
        """
        from cluster.errors import UserError
        from pipelines.engines.protocol import Chunk, GenerationRequest, Overloaded, PromptTooLong

        loop, chunks = asyncio.get_running_loop(), asyncio.Queue[Chunk]()

        def deliver(chunk: Chunk) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        with self._places.answering(arm) as (place, version):
            try:
                # In a thread: a megabyte of text takes its time, and other answers stream meanwhile.
                tokens = await asyncio.to_thread(place.tokens, prompt)
                request = GenerationRequest(
                    tokens,
                    place.adapter,
                    options.max_new_tokens,
                    options.temperature,
                    options.top_p,
                    options.stop,
                    options.seed,
                    continues=isinstance(prompt, str),
                )
                ticket = place.engine.submit(request, deliver)
            except Overloaded as error:
                yield Refused("overloaded", str(error))
                return
            except PromptTooLong as error:
                yield Refused("too_long", str(error))
                return
            except UserError as error:
                yield Refused("conversation", str(error))
                return
            try:
                yield Started(len(tokens), version)
                while True:
                    chunk = await chunks.get()
                    yield Piece(chunk.text, chunk.tokens, chunk.finish_reason, chunk.error)
                    if chunk.finish_reason is not None:
                        return
            finally:
                ticket.cancel()

    async def health(self) -> dict[str, Any]:
        """`generated_tokens`, `running` and `waiting` over all engines; where it follows, how far it has."""
        loads = [engine.load for engine in self._places.engines]
        found = {
            "generated_tokens": self._places.generated_tokens,
            "running": sum(running for running, _ in loads),
            "waiting": sum(waiting for _, waiting in loads),
        }
        if self._follower is None:
            return found
        following = {"loading": self._follower.loading, "trouble": self._follower.trouble}
        return found | {"version": self._places.version} | following

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if not all(engine.alive for engine in self._places.engines):
            raise RuntimeError("an engine's thread has ended")

    @property
    def _engines(self) -> "dict[str, TransformersEngine]":
        """The engine of each arm."""
        return {arm: place.engine for arm, place in self._places.arms.items()}

    def _prompt(self, arm: str, prompt: Prompt) -> tuple[int, ...]:
        """A prompt as the model of `arm` reads it."""
        return self._places.arms[arm].tokens(prompt)
