"""The engine deployment: base and adapters in one process, answers streamed piece by piece."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipelines.models.candidate import Candidate

if TYPE_CHECKING:
    from pipelines.engines.protocol import Engine, EngineOptions
    from serve.following import Follow

SCHEMA_S = 10
"""Seconds that a request may take to have its schema compiled."""

TOGETHER_S = 1.0
"""Of an answer that nobody reads along, what one event holds: each is a message of Ray's, which costs more than a token
of a small model. What breaks off lacks no more than that in the log."""

Prompt = str | list[dict[str, Any]]
"""A text that is continued as it is, or a conversation that is answered."""


@dataclass(frozen=True)
class Options:
    """How to answer, checked already."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    json_schema: str | None = None
    """What the answer must be, as JSON."""
    logprobs: int | None = None
    """How many alternatives are told beside each token's probability; None: nothing is."""
    tools: tuple[dict[str, Any], ...] = ()
    """What the prompt tells of tools, in OpenAI's shape."""
    read_along: bool = True
    """Whether somebody reads each token as it comes; else only the first one comes at once, and is timed."""


@dataclass(frozen=True)
class Started:
    """The first event of an answer: it was taken on."""

    prompt_tokens: int
    version: str = ""
    """The registered version that answers."""


@dataclass(frozen=True)
class Refused:
    """The only event of a request that was not taken on."""

    reason: Literal["overloaded", "too_long", "conversation", "schema"]
    message: str


@dataclass(frozen=True)
class Told:
    """A token with its probability."""

    text: str
    """As it reads alone; a character that takes several tokens reads in none of them."""
    logprob: float
    """Natural logarithm of what the model gave it."""
    likeliest: "tuple[Told, ...]" = ()
    """What it thought likeliest in this place, best first."""


@dataclass(frozen=True)
class Piece:
    """A piece of an answer; the last one has a finish reason."""

    text: str
    tokens: int
    finish_reason: str | None = None
    error: str = ""
    logprobs: tuple[Told, ...] = ()

    def then(self, later: "Piece") -> "Piece":
        """Both as one."""
        return Piece(
            self.text + later.text,
            self.tokens + later.tokens,
            later.finish_reason,
            later.error,
            self.logprobs + later.logprobs,
        )


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
        options: "EngineOptions",
        follow: "Follow | None" = None,
    ) -> None:
        """Load everything and generate a token from each arm: what cannot answer never becomes ready.

        With `follow` the arms are what is in production, from now on and whatever is promoted or rolled back.
        """
        from serve.following import Follower
        from serve.places import Places

        self._places = Places(options)
        # One after another, and in no thread that prompts need: one that takes too long is given up, and goes on.
        self._schemas = ThreadPoolExecutor(1, "schemas")
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
        from pipelines.engines.protocol import Chunk, GenerationRequest, Overloaded, PromptTooLong, SchemaRefused

        loop, chunks = asyncio.get_running_loop(), asyncio.Queue[Chunk]()

        def deliver(chunk: Chunk) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        with self._places.answering(arm) as (place, version):
            try:
                # In a thread: a megabyte of text takes its time, and other answers stream meanwhile.
                tokens = await asyncio.to_thread(place.tokens, prompt, options.tools)
                request = GenerationRequest(
                    tokens,
                    place.adapter,
                    options.max_new_tokens,
                    options.temperature,
                    options.top_p,
                    options.stop,
                    options.seed,
                    continues=isinstance(prompt, str),
                    json_schema=options.json_schema,
                    logprobs=options.logprobs,
                )
                if options.json_schema is not None:
                    read = self._schemas.submit(place.engine.read_schema, options.json_schema)
                    await asyncio.wait_for(asyncio.wrap_future(read), SCHEMA_S)
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
            except SchemaRefused as error:
                yield Refused("schema", str(error))
                return
            except TimeoutError:
                if read.cancelled():
                    # It had not begun: another's is to blame.
                    yield Refused("overloaded", "another request's schema is being compiled")
                    return
                yield Refused("schema", f"The schema was not compiled within {SCHEMA_S} s: make it simpler.")
                return
            try:
                yield Started(len(tokens), version)
                held, due = Piece("", 0), 0.0
                while True:
                    chunk = await chunks.get()
                    told = tuple(place.told(token) for token in chunk.logprobs)
                    held = held.then(Piece(chunk.text, chunk.tokens, chunk.finish_reason, chunk.error, told))
                    is_last = held.finish_reason is not None
                    if options.read_along or is_last or time.monotonic() >= due:
                        yield held
                        if is_last:
                            return
                        due = time.monotonic() + TOGETHER_S if held.tokens else due
                        held = Piece("", 0)
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
            raise RuntimeError("an engine has ended")

    @property
    def _engines(self) -> "dict[str, Engine]":
        """The engine of each arm."""
        return {arm: place.engine for arm, place in self._places.arms.items()}

    def _prompt(self, arm: str, prompt: Prompt) -> tuple[int, ...]:
        """A prompt as the model of `arm` reads it."""
        return self._places.arms[arm].tokens(prompt)
