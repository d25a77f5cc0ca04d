"""What an engine is: batches for evaluation, streams for serving; the same weights answer both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""`stop`: the end token or a stop string; `length`: max_new_tokens or the model's context was reached."""


class Overloaded(Exception):
    """The queue is full: try again later."""


class PromptTooLong(Exception):
    """The prompt leaves no room for an answer in the model's context."""


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

    def submit(self, request: GenerationRequest, deliver: Callable[[Chunk], None]) -> Ticket:
        """Take a request on; `deliver` is called from the engine's thread, the last time with a finish reason.

        Raises Overloaded when as many wait as may, PromptTooLong when nothing could be generated.
        """

    def generate(
        self, requests: Sequence[GenerationRequest], on_done: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """All answers, in the order of the requests; `on_done` hears of each as it ends. Raises EngineFailed."""

    def close(self) -> None:
        """Cancel what runs and free the memory."""
