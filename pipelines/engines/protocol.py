"""What an engine is: batches for evaluation, streams for serving; the same weights answer both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""`stop`: the end token or a stop string; `length`: max_new_tokens or the model's context was reached."""


class Overloaded(Exception):
    """The queue is full: try again later."""


class PromptTooLong(Exception):
    """The prompt leaves no room for an answer in the model's context."""


class SchemaRefused(Exception):
    """The JSON schema of the answer cannot be followed; the message says why."""


class EngineFailed(RuntimeError):
    """Generation itself broke; the message says how."""


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt and how to continue it."""

    prompt: tuple[int, ...]
    """Token ids, the chat template applied where there is one to apply."""
    adapter: str | None = None
    """Name of the adapter that answers; None: the bare base."""
    max_new_tokens: int = 256
    temperature: float = 0.0
    """0: the likeliest token each time."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that hold this much probability."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    seed: int | None = None
    """Of the sampling; the same seed gives the same answer, whoever shares the batch."""
    continues: bool = False
    """Whether the answer goes on with the prompt's text, rather than being a text of its own."""
    json_schema: str | None = None
    """What the answer must be, as JSON."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told at each place, beside the chosen one's probability; None: nothing."""


@dataclass(frozen=True)
class Token:
    """A token that was generated."""

    id: int
    logprob: float | None = None
    """Natural logarithm of what the model gave it, before temperature and top_p; None where nobody asked."""
    likeliest: tuple[tuple[int, float], ...] = ()
    """Ids and the same of the likeliest tokens in its place, best first."""


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer, in the order of generation."""

    text: str
    tokens: int
    """Tokens generated since the chunk before."""
    finish_reason: FinishReason | None = None
    """Set on the last chunk, and on no other."""
    error: str = ""
    """Why, when `finish_reason` is `error`."""
    logprobs: tuple[Token, ...] = ()
    """The tokens, where the request asked for their probabilities; one that ends the answer is none of them."""


@dataclass(frozen=True)
class Generation:
    """A whole answer."""

    text: str
    completion_tokens: int
    finish_reason: FinishReason


class Ticket(Protocol):
    """A request that was taken on."""

    def cancel(self) -> None:
        """Free the slot at the next step; the last chunk says `cancelled`."""


class Engine(Protocol):
    """Anything that generates from a base and its adapters."""

    generated_tokens: int
    """Since it was started."""

    @property
    def tokenizer(self) -> Any:
        """The base's, of transformers."""

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""

    @property
    def load(self) -> tuple[int, int]:
        """Requests that generate, and requests that wait."""

    @property
    def alive(self) -> bool:
        """Whether it can still generate."""

    def submit(self, request: GenerationRequest, deliver: Callable[[Chunk], None]) -> Ticket:
        """Take a request on; `deliver` is called from the engine's thread, the last time with a finish reason.

        Raises Overloaded when as many wait as may, PromptTooLong when nothing could be generated, SchemaRefused for a
        schema that cannot be followed.
        """

    def read_schema(self, schema: str) -> None:
        """Do at leisure what `submit` would have to do for a schema. Raises SchemaRefused."""

    def generate(
        self, requests: Sequence[GenerationRequest], on_done: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """All answers, in the order of the requests; `on_done` hears of each as it ends. Raises EngineFailed."""

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Let requests name one more adapter, while others are answered.

        Raises UserError for one that cannot be used over this base and for a name that is taken, EngineFailed for an
        engine that has ended; the engine is then as it was.
        """

    def remove_adapter(self, name: str, timeout_s: float | None = None) -> bool:
        """Refuse new requests for an adapter from now on, and free its memory when those that it has have ended.

        Waits for that, at most `timeout_s` seconds; False: it is still to come. Raises KeyError for an unknown one.
        """

    def close(self) -> None:
        """Cancel what runs and free the memory."""


EngineKind = Literal["transformers", "vllm"]
"""`transformers`: our own, for CPUs and for whatever transformers knows; `vllm`: for GPUs."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is set up; plain values that travel to the replicas."""

    kind: EngineKind = "transformers"
    dtype: str = "auto"
    max_batch_size: int = 16
    """Requests that generate at the same time."""
    max_queued_requests: int = 64
    lora_rank: int = 0
    """The greatest of the adapters that will come; vLLM reserves memory for it."""
    engines: int = 1
    """How many must fit into the memory; vLLM takes its part from the start."""


def open_engine(base_folder: str | Path, adapters: Mapping[str, str | Path], options: EngineOptions) -> Engine:
    """An engine that is ready.

    Raises UserError for what it cannot serve and where it is not installed, EngineFailed when it does not start.
    """
    if options.kind == "vllm":
        from pipelines.engines.vllm import VllmEngine

        return VllmEngine(base_folder, adapters, options)
    from pipelines.engines.transformers import TransformersEngine

    return TransformersEngine(base_folder, adapters, options.dtype, options.max_batch_size, options.max_queued_requests)
