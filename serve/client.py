"""A typed client of the service."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from cluster.errors import UserError
from serve.schemas import Answer, FeedbackKind, Usage

KEY_VARIABLE = "SLUICE_API_KEY"
"""Environment variable with the key that clients of this machine send."""

REMEDIES = {
    401: f"Give a key of this service ({KEY_VARIABLE}); `sluice keys add RECIPE NAME` makes one.",
    403: "Make a key that may: `sluice keys add RECIPE NAME --scope ...`.",
    429: "Wait a moment and ask again.",
    503: "Wait a moment and ask again.",
}


AWAY = {
    "self-signed certificate": "Name the file of the authority that you trust: SSL_CERT_FILE.",
    "unable to get local issuer": "Name the file of the authority that you trust: SSL_CERT_FILE.",
    "mismatch": "Ask by a name that its certificate has.",
    "certificate has expired": "Renew its certificate, and start it again.",
    "disconnected without sending a response": "Start it anew, or ask by https:// where it has a certificate.",
    "": "Start it with `sluice serve RECIPE`.",
}
"""What an error of the connection says -> what to do; the first that is found counts."""


class ServiceError(UserError):
    """The service refused a request, or is away."""

    def __init__(self, message: str, remedy: str = "", status: int | None = None) -> None:
        super().__init__(message, remedy)
        self.status = status


class Client:
    """Talks to one service; use it as a context manager, or close it."""

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", timeout_s: float = 300, api_key: str | None = None
    ) -> None:
        """`api_key`: sent with each request; without it, the one in SLUICE_API_KEY, if there is one."""
        headers = _authorization(os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key)
        try:
            self._http = httpx.Client(
                base_url=base_url.rstrip("/"), timeout=httpx.Timeout(timeout_s, connect=5), headers=headers
            )
        except OSError as error:
            # It reads the authorities that are trusted.
            raise ServiceError(
                f"The authorities that are trusted cannot be read: {error}.", "Mend or unset SSL_CERT_FILE."
            ) from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def chat(
        self, messages: Sequence[dict[str, Any]], user: str | None = None, model: str | None = None, **options: Any
    ) -> Answer:
        """The answer to a conversation; `options` are OpenAI's (max_tokens, temperature, seed, stop ...)."""
        reply = self._send("POST", "/v1/chat/completions", _body(messages, user, model, options))
        content = reply.json()
        choice = content["choices"][0]
        return Answer(
            request_id=reply.headers["x-request-id"],
            arm=reply.headers["x-sluice-arm"],
            model=content["model"],
            # An answer that is nothing but calls has no text.
            text=choice["message"]["content"] or "",
            tool_calls=choice["message"].get("tool_calls", []),
            finish_reason=choice["finish_reason"],
            usage=Usage.model_validate(content["usage"]),
        )

    def stream(
        self, messages: Sequence[dict[str, Any]], user: str | None = None, model: str | None = None, **options: Any
    ) -> "Stream":
        """The answer piece by piece: iterate over it; leaving early cancels the generation."""
        body = _body(messages, user, model, options) | {"stream": True, "stream_options": {"include_usage": True}}
        request = self._http.build_request("POST", "/v1/chat/completions", json=body)
        try:
            reply = self._http.send(request, stream=True)
            if reply.is_error:
                reply.read()
        except httpx.TransportError as error:
            raise self._away(error) from None
        _check(reply)
        return Stream(reply)

    def feedback(
        self, request_id: str, kind: FeedbackKind, reason: str | None = None, correction: str | None = None
    ) -> int:
        """Store what a person says of an answer; the number of the stored row."""
        body = {"request_id": request_id, "kind": kind, "reason": reason, "correction": correction}
        return int(self._send("POST", "/v1/feedback", body).json()["id"])

    def models(self) -> list[str]:
        """Names that `model` may say."""
        return [entry["id"] for entry in self._send("GET", "/v1/models").json()["data"]]

    def health(self) -> dict[str, Any]:
        """Figures of the engine. Raises ServiceError while it cannot answer."""
        found: dict[str, Any] = self._send("GET", "/healthz").json()
        return found

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            reply = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise self._away(error) from None
        _check(reply)
        return reply

    def _away(self, error: Exception) -> ServiceError:
        remedy = next((remedy for said, remedy in AWAY.items() if said in str(error)), AWAY[""])
        return ServiceError(f"{self._http.base_url}: the service cannot be reached ({error}).", remedy)


class Stream:
    """An answer on its way."""

    def __init__(self, reply: httpx.Response) -> None:
        self._reply = reply
        self.request_id: str = reply.headers["x-request-id"]
        self.arm: str = reply.headers["x-sluice-arm"]
        self.model = ""
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        """Known once the stream has ended."""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they arrive."""
        try:
            for line in self._reply.iter_lines():
                if line == "data: [DONE]":
                    return
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise ServiceError(event["error"]["message"], status=500)
                self.model = event["model"]
                if event.get("usage"):
                    self.usage = Usage.model_validate(event["usage"])
                for choice in event["choices"]:
                    self.finish_reason = choice["finish_reason"] or self.finish_reason
                    if text := choice["delta"].get("content"):
                        yield text
            # Something in between may end a reply in good order where the service did not.
            raise ServiceError("The stream broke off: it has no end.", "Ask again.")
        except httpx.TransportError as error:
            raise ServiceError(f"The stream broke off: {error}.", "Ask again.") from None
        finally:
            self.close()

    def close(self) -> None:
        """Leave; what has not been generated yet is cancelled."""
        self._reply.close()


def _body(
    messages: Sequence[dict[str, Any]], user: str | None, model: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    return {"messages": list(messages), "model": model or "auto"} | ({"user": user} if user else {}) | options


def _check(reply: httpx.Response) -> None:
    if not reply.is_error:
        return
    try:
        message = reply.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = reply.text[:200] or reply.reason_phrase
    raise ServiceError(f"{message} (HTTP {reply.status_code})", REMEDIES.get(reply.status_code, ""), reply.status_code)


def _authorization(key: str) -> dict[str, str]:
    key = key.strip()
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        # It must not stand in the message: it may be a key with something beside it.
        raise UserError("The API key holds characters that no key has.", f"Give the key alone ({KEY_VARIABLE}).")
    return {"Authorization": f"Bearer {key}"}
