"""Answers in OpenAI's shapes: whole, or in pieces as server-sent events."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from pipelines.engines.text import REPLACEMENT
from serve.errors import RequestError
from serve.hosting import Piece, Told
from serve.turn import Turn


class Shape(Protocol):
    """How an endpoint writes what was generated."""

    whole: str
    """`object` of an answer in one piece."""
    part: str
    """`object` of a piece."""

    def answer(self, text: str) -> dict[str, Any]:
        """What a whole answer's choice holds of the text."""

    def opening(self) -> dict[str, Any] | None:
        """What a stream's first event holds before any text, if there is one."""

    def piece(self, text: str) -> dict[str, Any]:
        """What an event's choice holds of a piece of text."""

    def logprobs(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """What a choice holds of its tokens' probabilities; pieces come in their order."""


class ChatShape:
    """Chat completions: a message, or what a piece adds to it."""

    whole, part = "chat.completion", "chat.completion.chunk"

    def answer(self, text: str) -> dict[str, Any]:
        """The assistant's message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any] | None:
        """The role."""
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> dict[str, Any]:
        """More of the content."""
        return {"delta": {"content": text}}

    def logprobs(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """For each token itself and its rivals."""

        def entry(told: Told) -> dict[str, Any]:
            return {"token": told.text, "logprob": _finite(told.logprob), "bytes": _bytes(told.text)}

        content = [entry(told) | {"top_logprobs": [entry(rival) for rival in told.likeliest]} for told in tokens]
        return {"content": content, "refusal": None}


class TextShape:
    """Completions: the text that goes on from the prompt; events have the shape of the whole."""

    whole = part = "text_completion"

    def __init__(self) -> None:
        self._offset = 0

    def answer(self, text: str) -> dict[str, Any]:
        """The text, without the prompt."""
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        """Nothing comes before the text."""
        return None

    def piece(self, text: str) -> dict[str, Any]:
        """More of the text."""
        return {"text": text}

    def logprobs(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """Lists with a place for each token."""
        offsets = []
        for told in tokens:
            offsets.append(self._offset)
            self._offset += len(told.text)
        return {
            "tokens": [told.text for told in tokens],
            "token_logprobs": [_finite(told.logprob) for told in tokens],
            # The likelier one stays of two that read alike: parts of characters.
            "top_logprobs": [
                {rival.text: _finite(rival.logprob) for rival in reversed(told.likeliest)} for told in tokens
            ],
            "text_offset": offsets,
        }


def whole(turn: Turn, shape: Shape) -> dict[str, Any]:
    """The JSON of an answer that has ended."""
    choice = _choice(shape, shape.answer("".join(turn.text)), turn.finish_reason, turn.logprobs)
    return _about(turn, shape.whole) | {"choices": [choice], "usage": turn.usage.model_dump()}


async def events(
    turn: Turn, first: Piece | None, pieces: AsyncIterator[Piece], shape: Shape, usage: bool
) -> AsyncIterator[str]:
    """Server-sent events; when the client leaves, closing `pieces` cancels the generation."""
    about = _about(turn, shape.part)

    def event(content: dict[str, Any], finish_reason: str | None = None, told: Sequence[Told] = ()) -> str:
        return _data(about | {"choices": [_choice(shape, content, finish_reason, told)]})

    async with aclosing(pieces):  # type: ignore[type-var]
        if opening := shape.opening():
            yield event(opening)
        try:
            if first is not None:
                yield event(shape.piece(first.text), first.finish_reason, first.logprobs)
            async for piece in pieces:
                yield event(shape.piece(piece.text), piece.finish_reason, piece.logprobs)
        except RequestError as error:
            # The status went out long ago: the client finds the error in the stream.
            yield _data(error.body())
            return
    if usage:
        yield _data(about | {"choices": [], "usage": turn.usage.model_dump()})
    yield "data: [DONE]\n\n"


def _about(turn: Turn, kind: str) -> dict[str, Any]:
    return {"id": turn.request_id, "object": kind, "created": int(time.time()), "model": turn.model}


def _choice(shape: Shape, content: dict[str, Any], finish_reason: str | None, told: Sequence[Told]) -> dict[str, Any]:
    logprobs = shape.logprobs(told) if told else None
    return {"index": 0} | content | {"finish_reason": finish_reason, "logprobs": logprobs}


def _finite(logprob: float) -> float:
    """JSON knows no infinity: OpenAI's number for what is as good as impossible."""
    return max(logprob, -9999.0)


def _bytes(text: str) -> list[int] | None:
    """None for a part of a character, whose bytes are not known."""
    return None if REPLACEMENT in text else list(text.encode())


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
