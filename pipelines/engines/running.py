"""A request from its arrival to its last chunk."""

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pipelines.engines.grammar import Grammar
from pipelines.engines.protocol import (
    Chunk,
    EngineFailed,
    FinishReason,
    Generation,
    GenerationRequest,
    PromptTooLong,
    Ticket,
    Token,
)
from pipelines.engines.text import TextStream

CONTEXT_TOKENS = 8
"""The last tokens of a prompt by which the text that goes on with it is decoded: some tokenizers drop a blank that
stands first."""


class Running:
    """A request from its arrival to its last chunk; also the ticket that its owner holds."""

    def __init__(
        self,
        request: GenerationRequest,
        deliver: Callable[[Chunk], None],
        tokenizer: Any,
        *,
        room: int,
        ends: Collection[int],
        apart: bool = False,
    ) -> None:
        """Raise PromptTooLong where there is no room for an answer.

        `room`: the most tokens of prompt and answer; `ends`: those that end an answer; `apart`: an answer is a text of
        its own, whatever the request says.
        """
        if not request.prompt or len(request.prompt) >= room:
            raise PromptTooLong(
                f"The prompt has {len(request.prompt)} tokens and the model's context {room}; "
                "at least one token must be left for the answer."
            )
        self.request = request
        self.most = min(request.max_new_tokens, room - len(request.prompt))
        """Tokens that the answer may have."""
        self.grammar: Grammar | None = None
        """What the answer may be, for an engine that chooses the tokens itself."""
        self.cancelled = False
        self.tokens = 0
        self._ends = ends
        self._told: list[Token] = []
        context = request.prompt[-CONTEXT_TOKENS:] if request.continues and not apart else ()
        self._text = TextStream(lambda tokens: _decode(tokenizer, tokens), request.stop, context)
        self._deliver, self._reported = deliver, 0

    def cancel(self) -> None:
        """Leave the batch (or the queue) at the next step."""
        self.cancelled = True

    def take(self, token: Token) -> tuple[str, FinishReason | None]:
        """The text that a new token adds, and why the answer ends with it, if it does."""
        self.tokens += 1
        if token.id in self._ends:
            return self._text.flush(), "stop"
        if token.logprob is not None:
            self._told.append(token)
        piece = self._text.push(token.id)
        if self._text.stopped:
            return piece, "stop"
        if self.tokens >= self.most:
            piece += self._text.flush()
            return piece, "stop" if self._text.stopped else "length"
        return piece, None

    def tell(self, text: str, finish_reason: FinishReason | None = None, error: str = "") -> None:
        """Deliver a chunk; a listener that fails has gone away."""
        chunk = Chunk(text, self.tokens - self._reported, finish_reason, error, tuple(self._told))
        self._reported, self._told = self.tokens, []
        try:
            self._deliver(chunk)
        except Exception:
            self.cancelled = True


class Collector:
    """Gathers the chunks of one request of a batch."""

    def __init__(
        self,
        index: int,
        results: list[Generation | None],
        errors: list[str],
        left: threading.Semaphore,
        on_done: Callable[[int, Generation], None] | None,
    ) -> None:
        self._index, self._results, self._errors, self._left = index, results, errors, left
        self._on_done = on_done
        self._pieces: list[str] = []
        self._tokens = 0

    def __call__(self, chunk: Chunk) -> None:
        """Take a chunk, and count the request off with its last."""
        self._pieces.append(chunk.text)
        self._tokens += chunk.tokens
        if chunk.finish_reason is None:
            return
        try:
            if chunk.finish_reason == "error":
                self._errors.append(chunk.error)
                return
            done = Generation("".join(self._pieces), self._tokens, chunk.finish_reason)
            self._results[self._index] = done
            if self._on_done:
                self._on_done(self._index, done)
        except Exception as error:
            self._errors.append(f"the listener failed: {error!r}")
        finally:
            self._left.release()


def all_answers(
    enqueue: Callable[[GenerationRequest, Callable[[Chunk], None]], Ticket],
    requests: Sequence[GenerationRequest],
    on_done: Callable[[int, Generation], None] | None,
) -> list[Generation]:
    """The answers in the order of `requests`; `on_done` hears of each. Raises EngineFailed when one of them breaks."""
    results: list[Generation | None] = [None] * len(requests)
    errors: list[str] = []
    left = threading.Semaphore(0)
    tickets = [
        enqueue(request, Collector(index, results, errors, left, on_done)) for index, request in enumerate(requests)
    ]
    for _ in requests:
        left.acquire()
        if errors:
            for ticket in tickets:
                ticket.cancel()
            raise EngineFailed(errors[0])
    return [result for result in results if result is not None]


def _decode(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
