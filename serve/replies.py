"""Answers in OpenAI's shapes: whole, or in pieces as server-sent events."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from serve.errors import RequestError
from serve.hosting import Piece
from serve.service import Turn


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


class TextShape:
    """Completions: the text that goes on from the prompt; events have the shape of the whole."""

    whole = part = "text_completion"

    def answer(self, text: str) -> dict[str, Any]:
        """The text, without the prompt."""
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        """Nothing comes before the text."""
        return None

    def piece(self, text: str) -> dict[str, Any]:
        """More of the text."""
        return {"text": text}


def whole(turn: Turn, shape: Shape) -> dict[str, Any]:
    """The JSON of an answer that has ended."""
    choice = _choice(shape.answer("".join(turn.text)), turn.finish_reason)
    return _about(turn, shape.whole) | {"choices": [choice], "usage": turn.usage.model_dump()}


async def events(
    turn: Turn, first: Piece | None, pieces: AsyncIterator[Piece], shape: Shape, usage: bool
) -> AsyncIterator[str]:
    """Server-sent events; when the client leaves, closing `pieces` cancels the generation."""
    about = _about(turn, shape.part)

    def event(content: dict[str, Any], finish_reason: str | None = None) -> str:
        return _data(about | {"choices": [_choice(content, finish_reason)]})

    async with aclosing(pieces):  # type: ignore[type-var]
        if opening := shape.opening():
            yield event(opening)
        try:
            if first is not None:
                yield event(shape.piece(first.text), first.finish_reason)
            async for piece in pieces:
                yield event(shape.piece(piece.text), piece.finish_reason)
        except RequestError as error:
            # The status went out long ago: the client finds the error in the stream.
            yield _data(error.body())
            return
    if usage:
        yield _data(about | {"choices": [], "usage": turn.usage.model_dump()})
    yield "data: [DONE]\n\n"


def _about(turn: Turn, kind: str) -> dict[str, Any]:
    return {"id": turn.request_id, "object": kind, "created": int(time.time()), "model": turn.model}


def _choice(content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0} | content | {"finish_reason": finish_reason, "logprobs": None}


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
