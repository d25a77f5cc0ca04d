"""The HTTP side: OpenAI's completions and models, feedback, health and figures."""

import logging
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.bodies import read_body
from serve.description import body_of, describe
from serve.errors import RequestError
from serve.keys import Scope
from serve.metrics import CONTENT_TYPE
from serve.middleware import Counted, RequestIds
from serve.replies import ChatShape, Shape, TextShape, events, whole
from serve.schemas import ChatRequest, CompletionRequest, EventsRequest, FeedbackRequest
from serve.service import ChatService
from serve.tracing import trace_of

logger = logging.getLogger("sluice.serve")

USER_HEADER = "x-sluice-user"


def build_gateway(service: ChatService) -> ASGIApp:
    """The ASGI application over a service."""
    app = FastAPI(title="Sluice", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    _answer_errors(app)
    app.add_middleware(RequestIds)
    app.add_middleware(Counted, metrics=service.metrics)

    def needs(scope: Scope) -> list[Any]:
        """Dependencies that let a request through when its key has the scope; before its body is read."""
        if service.keys is None:
            return []
        keys = service.keys

        async def check(request: Request) -> None:
            await keys.check(request.headers.get("authorization"), scope)

        return [Depends(check)]

    async def may_see_figures(request: Request) -> bool:
        if service.keys is None:
            return True
        if "authorization" not in request.headers:
            return False
        try:
            await service.keys.check(request.headers["authorization"], "metrics")
        except RequestError:
            return False
        return True

    async def answer(request: Request, body: ChatRequest | CompletionRequest, shape: Shape) -> Response:
        user, trace = request.headers.get(USER_HEADER), trace_of(request.headers)
        turn = await service.begin(body, user, request.state.request_id, trace)
        request.state.turn = turn
        headers = {"x-sluice-arm": turn.arm}
        pieces = service.pieces(turn)
        if not body.stream:
            async for _ in pieces:
                pass
            return JSONResponse(whole(turn, shape), headers=headers)
        # The first piece is waited for, so that a refusal still has its status.
        first = await anext(pieces, None)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(
            events(turn, first, pieces, shape, usage),
            media_type="text/event-stream",
            headers=headers | {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    @app.post("/v1/chat/completions", dependencies=needs("chat"), openapi_extra=body_of(ChatRequest))
    async def chat(request: Request) -> Response:
        """Answer a conversation."""
        body = await read_body(request, ChatRequest)
        return await answer(request, body, ChatShape(body.reader()))

    @app.post("/v1/completions", dependencies=needs("chat"), openapi_extra=body_of(CompletionRequest))
    async def completions(request: Request) -> Response:
        """Continue a text as it is; no chat template is applied."""
        return await answer(request, await read_body(request, CompletionRequest), TextShape())

    @app.post("/v1/feedback", dependencies=needs("feedback"), openapi_extra=body_of(FeedbackRequest))
    async def feedback(request: Request) -> Response:
        """Keep what a person says of an answer."""
        number = await service.feedback(await read_body(request, FeedbackRequest))
        return JSONResponse({"id": number, "status": "stored"})

    @app.post("/v1/events", dependencies=needs("events"), openapi_extra=body_of(EventsRequest))
    async def store_events(request: Request) -> Response:
        """Keep what came of answers; each event counts once, however often it is sent."""
        done = await service.events(await read_body(request, EventsRequest))
        return JSONResponse({"stored": done.stored, "known": done.known})

    @app.get("/v1/models", dependencies=needs("models"))
    async def models() -> Response:
        """List what `model` may say."""
        return JSONResponse({"object": "list", "data": service.models()})

    @app.get("/metrics", dependencies=needs("metrics"))
    async def metrics() -> Response:
        """Show this process's figures in Prometheus' text format."""
        return Response(await service.figures(), media_type=CONTENT_TYPE)

    @app.get("/healthz")
    async def healthz(request: Request) -> Response:
        """Say whether a token was generated; no key is asked for, and one with the scope `metrics` is told more."""
        found = await service.health()
        if await may_see_figures(request):
            return JSONResponse(found)
        return JSONResponse({name: found[name] for name in ("status", "recipe")})

    describe(app, keys=service.keys is not None)
    if not service.hosted.cors_origins:
        return app
    # Around all else: a page's script reads refusals and failures too.
    return CORSMiddleware(
        app,
        allow_origins=service.hosted.cors_origins,
        allow_methods=["GET", "POST"],
        # Clients of OpenAI's send many of their own; no cookie is among them.
        allow_headers=["*"],
        expose_headers=["retry-after", "x-request-id", "x-sluice-arm"],
    )


def _answer_errors(app: FastAPI) -> None:
    """Let every error have OpenAI's shape."""

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


def _error(error: RequestError) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)
