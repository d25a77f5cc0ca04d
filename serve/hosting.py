"""The engine deployment: base and adapters in one process, answers streamed piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipelines.models.candidate import Candidate

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
        """`generated_tokens`, `running` and `waiting`."""


class EngineReplica:
    """Hosts the candidates; those over the same base share it in memory."""

    def __init__(self, arms: Mapping[str, Candidate], dtype: str, max_batch_size: int, max_queued_requests: int):
        """Load everything and generate a token from each arm: what cannot answer never becomes ready."""
        from pipelines.engines.protocol import GenerationRequest
        from pipelines.engines.transformers import TransformersEngine
        from pipelines.workspace import Workspace

        # The replica may run on another machine than the one that recorded the folders.
        arms = {arm: one.here(Workspace()) for arm, one in arms.items()}
        self._engines: dict[str, TransformersEngine] = {}
        self._adapters: dict[str, str | None] = {}
        for folder in dict.fromkeys(candidate.base_folder for candidate in arms.values()):
            over = {arm: one for arm, one in arms.items() if one.base_folder == folder}
            adapters = {arm: one.adapter_folder for arm, one in over.items() if one.adapter_folder is not None}
            engine = TransformersEngine(folder, adapters, dtype, max_batch_size, max_queued_requests)
            for arm in over:
                self._engines[arm] = engine
                self._adapters[arm] = arm if arm in adapters else None
        for arm, engine in self._engines.items():
            prompt = self._prompt(arm, [{"role": "user", "content": "Hello"}])
            engine.generate([GenerationRequest(prompt, self._adapters[arm], max_new_tokens=1)])

    async def answer(self, arm: str, prompt: Prompt, options: Options) -> AsyncIterator[Event]:
        """Started and then pieces, or Refused. When the caller goes away the request leaves the batch."""
        from cluster.errors import UserError
        from pipelines.engines.protocol import Chunk, GenerationRequest, Overloaded, PromptTooLong

        loop, chunks = asyncio.get_running_loop(), asyncio.Queue[Chunk]()
        try:
            # In a thread: a megabyte of text takes its time, and other answers stream meanwhile.
            tokens = await asyncio.to_thread(self._prompt, arm, prompt)
            request = GenerationRequest(
                tokens,
                self._adapters[arm],
                options.max_new_tokens,
                options.temperature,
                options.top_p,
                options.stop,
                options.seed,
                continues=isinstance(prompt, str),
            )

            def deliver(chunk: Chunk) -> None:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

            ticket = self._engines[arm].submit(request, deliver)
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
            yield Started(len(tokens))
            while True:
                chunk = await chunks.get()
                yield Piece(chunk.text, chunk.tokens, chunk.finish_reason, chunk.error)
                if chunk.finish_reason is not None:
                    return
        finally:
            ticket.cancel()

    async def health(self) -> dict[str, Any]:
        """`generated_tokens`, `running` and `waiting` over all engines."""
        engines = set(self._engines.values())
        loads = [engine.load for engine in engines]
        return {
            "generated_tokens": sum(engine.generated_tokens for engine in engines),
            "running": sum(running for running, _ in loads),
            "waiting": sum(waiting for _, waiting in loads),
        }

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises."""
        if not all(engine.alive for engine in self._engines.values()):
            raise RuntimeError("an engine's thread has ended")

    def _prompt(self, arm: str, prompt: Prompt) -> tuple[int, ...]:
        from pipelines.data.chat import continuation_tokens, prompt_tokens

        tokenizer = self._engines[arm].base.tokenizer
        if isinstance(prompt, str):
            return tuple(continuation_tokens(tokenizer, prompt))
        return tuple(prompt_tokens(tokenizer, prompt))
