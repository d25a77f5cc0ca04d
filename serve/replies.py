"""Answers in OpenAI's shapes: whole, or in pieces as server-sent events."""

import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from pipelines.engines.text import REPLACEMENT
from serve.calls import Call, CallReader
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

    def pieces(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """What events' choices hold of a piece of text: one for each."""

    def finish_reason(self, reason: str | None) -> str | None:
        """Why it ended, once all of it was told."""

    def logprobs(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """What a choice holds of its tokens' probabilities; pieces come in their order."""


class ChatShape:
    """Chat completions: a message, or what a piece adds to it."""

    whole, part = "chat.completion", "chat.completion.chunk"

    def __init__(self, reader: CallReader | None = None) -> None:
        """`reader`: finds calls of tools, where there are any to call."""
        self._reader = reader

    def answer(self, text: str) -> dict[str, Any]:
        """The assistant's message."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._reader is not None:
            parts = self._reader.read(text, last=True)
            said = "".join(part for part in parts if isinstance(part, str))
            if calls := [part.told() for part in parts if isinstance(part, Call)]:
                message |= {"content": said or None, "tool_calls": calls}
        return {"message": message}

    def opening(self) -> dict[str, Any] | None:
        """The role."""
        return {"delta": {"role": "assistant", "content": ""}}

    def pieces(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """More of the content; a call when it is whole."""
        if self._reader is None:
            return [{"delta": {"content": text}}]
        already = len(self._reader.calls)
        deltas: list[dict[str, Any]] = []
        for part in self._reader.read(text, last=last):
            if isinstance(part, str):
                deltas.append({"content": part})
            else:
                deltas.append({"tool_calls": [{"index": already} | part.told()]})
                already += 1
        # The last event tells why it ended, with or without more to tell.
        return [{"delta": delta} for delta in (deltas or ([{}] if last else []))]

    def finish_reason(self, reason: str | None) -> str | None:
        """An answer that ended with calls waits for their results."""
        called = self._reader is not None and self._reader.calls
        return "tool_calls" if called and reason == "stop" else reason

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

    def pieces(self, text: str, *, last: bool) -> list[dict[str, Any]]:
        """More of the text."""
        return [{"text": text}]

    def finish_reason(self, reason: str | None) -> str | None:
        """As it is."""
        return reason

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
    content = shape.answer("".join(turn.text))
    choice = _choice(shape, content, shape.finish_reason(turn.finish_reason), turn.logprobs)
    return _about(turn, shape.whole) | {"choices": [choice], "usage": turn.usage.model_dump()}


async def events(
    turn: Turn, first: Piece | None, pieces: AsyncIterator[Piece], shape: Shape, usage: bool
) -> AsyncIterator[str]:
    """Server-sent events; when the client leaves, closing `pieces` cancels the generation."""
    about = _about(turn, shape.part)

    def event(content: dict[str, Any], finish_reason: str | None = None, tokens: Sequence[Told] = ()) -> str:
        return _data(about | {"choices": [_choice(shape, content, finish_reason, tokens)]})

    def written(piece: Piece) -> Iterator[str]:
        contents = shape.pieces(piece.text, last=piece.finish_reason is not None)
        for content in contents[:-1]:
            yield event(content)
        for content in contents[-1:]:
            yield event(content, shape.finish_reason(piece.finish_reason), piece.logprobs)

    async with aclosing(pieces):  # type: ignore[type-var]
        if opening := shape.opening():
            yield event(opening)
        try:
            for one in written(first) if first is not None else ():
                yield one
            async for piece in pieces:
                for one in written(piece):
                    yield one
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
