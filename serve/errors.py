"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}."""

from typing import Any

CLIENT_GONE = 499
"""Status of a request whose client left before its end (nginx's convention)."""


class RequestError(Exception):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON of the reply."""
        kind = {
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            429: "rate_limit_error",
        }.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def overloaded() -> RequestError:
    """The queue is full."""
    return RequestError(
        429, "Too many requests wait already; try again in a moment.", code="overloaded", headers={"Retry-After": "1"}
    )


def invalid(errors: list[Any]) -> RequestError:
    """422 from pydantic's errors, all of them in one message."""
    problems = [(".".join(str(part) for part in error["loc"]), str(error["msg"])) for error in errors]
    message = "; ".join(f"{place or 'body'}: {text}" for place, text in problems[:20])
    return RequestError(422, message, code="invalid_value", param=problems[0][0] or None)
