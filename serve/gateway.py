"""The HTTP side: OpenAI's chat completions, models, health and feedback."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from serve.errors import RequestError, invalid
from serve.hosting import Piece
from serve.schemas import MAX_BODY_BYTES, ChatRequest, FeedbackRequest
from serve.service import ChatService, Turn, new_request_id

logger = logging.getLogger("sluice.serve")

BODY_TIMEOUT_S = 30
USER_HEADER = "x-sluice-user"

Body = TypeVar("Body", bound=BaseModel)


def build_gateway(service: ChatService) -> FastAPI:
    """The ASGI application over a service."""
    app = FastAPI(title="Sluice", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RequestError)
    async def on_request_error(request: Request, error: RequestError) -> Response:
        return _error(error)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _error(RequestError(error.status_code, message, code=str(error.status_code)))

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> Response:
        logger.exception("a request failed", exc_info=error)
        return _error(RequestError(500, "The server failed; its log says why.", code="internal_error"))

    app.add_middleware(RequestIds)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await read_body(request, ChatRequest)
        turn = await service.begin(body, request.headers.get(USER_HEADER), request.state.request_id)
        headers = {"x-sluice-arm": turn.arm}
        if not body.stream:
            async for _ in service.pieces(turn):
                pass
            return JSONResponse(_completion(turn), headers=headers)
        pieces = service.pieces(turn)
        # The first piece is waited for, so that a refusal still has its status.
        first = await anext(pieces, None)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(
            _events(turn, first, pieces, usage),
            media_type="text/event-stream",
            headers=headers | {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> Response:
        number = await service.feedback(await read_body(request, FeedbackRequest))
        return JSONResponse({"id": number, "status": "stored"})

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": service.models()})

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse(await service.health())

    return app


class RequestIds:
    """Gives each request an id: its `x-request-id` header, which Serve's proxy adds and echoes, or a new one."""

    # Plain ASGI: Starlette's own middleware hides from a stream that its client left.

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("x-request-id")
        request_id = stated or new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def with_id(message: ASGIMessage) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send if stated else with_id)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The request's body. Raises RequestError: 413 too large, 408 too slow, 400 no JSON, 422 wrong values."""
    try:
        raw = await asyncio.wait_for(_read_bytes(request), BODY_TIMEOUT_S)
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive in {BODY_TIMEOUT_S} s.", code="timeout") from None
    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"The body is not UTF-8 at byte {error.start}.", code="invalid_utf8") from None
    except RecursionError:
        raise RequestError(400, "The body is nested too deeply.", code="invalid_json") from None
    except ValueError as error:
        raise RequestError(400, f"The body is not JSON: {error}.", code="invalid_json") from None
    try:
        # JSON can escape half a character, which no tokenizer and no database takes.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return model.model_validate(content)
    except UnicodeEncodeError:
        raise RequestError(422, "The text holds a lone surrogate.", code="invalid_value") from None
    except ValidationError as error:
        raise invalid(error.errors()) from None


async def _read_bytes(request: Request) -> bytes:
    too_large = RequestError(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.", code="body_too_large")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _error(error: RequestError) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def _completion(turn: Turn) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(turn.text), "refusal": None}
    return {
        "id": turn.request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": turn.model,
        "choices": [{"index": 0, "message": message, "finish_reason": turn.finish_reason, "logprobs": None}],
        "usage": turn.usage.model_dump(),
    }


async def _events(turn: Turn, first: Piece | None, pieces: AsyncIterator[Piece], usage: bool) -> AsyncIterator[str]:
    """Server-sent events; when the client leaves, closing `pieces` cancels the generation."""
    created = int(time.time())

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _data(
            {
                "id": turn.request_id,
                "object": "chat.completion.chunk",
                "created": created,
                "model": turn.model,
                "choices": [choice],
            }
        )

    async with aclosing(pieces):  # type: ignore[type-var]
        yield event({"role": "assistant", "content": ""})
        try:
            if first is not None:
                yield event({"content": first.text}, first.finish_reason)
            async for piece in pieces:
                yield event({"content": piece.text}, piece.finish_reason)
        except RequestError as error:
            # The status went out long ago: the client finds the error in the stream.
            yield _data(error.body())
            return
    if usage:
        about = {"id": turn.request_id, "object": "chat.completion.chunk", "created": created, "model": turn.model}
        yield _data(about | {"choices": [], "usage": turn.usage.model_dump()})
    yield "data: [DONE]\n\n"


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
