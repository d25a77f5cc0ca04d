"""One request on its way: who asks, which arm answers, and what has come of it so far."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve.errors import CLIENT_GONE
from serve.hosting import Options, Piece, Prompt, Started, Told
from serve.schemas import Usage


@dataclass
class Turn:
    """A request and its answer so far."""

    request_id: str
    unit: str
    arm: str
    model: str
    prompt: Prompt
    place: str
    """The request's field that holds the prompt."""
    options: Options
    experiment: int | None = None
    """The experiment that chose the arm."""
    named: bool = False
    """Whether the client named the arm."""
    started: float = field(default_factory=time.monotonic)
    trace: Mapping[str, str] = field(default_factory=dict)
    """What the client says of the trace that it belongs to."""
    shadow_of: str | None = None
    """The request whose shadow this is: nobody sees it."""
    taken_on_at: float | None = None
    """When the engine took it on, in seconds on the clock of `started`."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_at: float | None = None
    """When the first came, on the same clock."""
    first_tokens: int = 0
    """Tokens of the first piece: a character may take several."""
    chosen_for: str | None = None
    """The registered version that the arm was chosen for."""
    version: str | None = None
    """The one that answers, once it does."""
    text: list[str] = field(default_factory=list)
    logprobs: list[Told] = field(default_factory=list)
    finish_reason: str | None = None
    status: int = CLIENT_GONE

    @property
    def first_token_ms(self) -> float | None:
        """From the start to the first token."""
        return None if self.first_token_at is None else milliseconds(self.started, self.first_token_at)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.prompt_tokens + self.completion_tokens,
        )

    def begin(self, event: Started) -> None:
        """Take note that the engine took it on."""
        self.taken_on_at = time.monotonic()
        self.prompt_tokens, self.version = event.prompt_tokens, event.version or None

    def note(self, piece: Piece) -> None:
        """Take note of a piece of the answer."""
        self.text.append(piece.text)
        self.logprobs += piece.logprobs
        self.completion_tokens += piece.tokens
        self.finish_reason = piece.finish_reason
        if self.first_token_at is None and piece.tokens:
            self.first_token_at, self.first_tokens = time.monotonic(), piece.tokens
        if piece.finish_reason in ("stop", "length"):
            self.status = 200

    def row(self, total_ms: float) -> dict[str, Any]:
        """What is kept of it, `total_ms` after its start."""
        return {
            "request_id": self.request_id,
            "unit": self.unit,
            "arm": self.arm,
            "model": self.model,
            "messages": {self.place: self.prompt} | ({"tools": [*self.options.tools]} if self.options.tools else {}),
            "answer": "".join(self.text),
            "finish_reason": self.finish_reason if self.status != CLIENT_GONE else "cancelled",
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "first_token_ms": self.first_token_ms,
            "total_ms": total_ms,
            "status": self.status,
            "experiment_id": self.experiment,
            "model_version": self.version,
            "shadow_of": self.shadow_of,
        }


def milliseconds(since: float, until: float) -> float:
    """Between two moments of one clock in seconds."""
    return round(1000 * (until - since), 3)
