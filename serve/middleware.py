"""What goes around each request: an id, and its place among the figures."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import CLIENT_GONE
from serve.metrics import Metrics
from serve.service import new_request_id

# Plain ASGI, both: Starlette's own middleware hides from a stream that its client left.


class RequestIds:
    """Gives each request an id: its `x-request-id` header, which Serve's proxy adds and echoes, or a new one."""

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

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send if stated else with_id)


class Counted:
    """Counts each request by how it ended: the reply's status, or how its answer ended once that had begun."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        # Whoever leaves before the reply begins has had none.
        status = CLIENT_GONE

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, heard)
        except Exception:
            status = 500
            raise
        finally:
            turn = state.get("turn")
            if turn is not None and status < 400:
                status = turn.status
            self._metrics.answered(scope["path"], turn.arm if turn is not None else None, status)
