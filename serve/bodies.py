"""Reading a request's body: bounded in size and time, JSON, and text that every tokenizer and database takes."""

import asyncio
import json
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from serve import json_text
from serve.errors import CLIENT_GONE, RequestError, invalid
from serve.schemas import MAX_BODY_BYTES

BODY_TIMEOUT_S = 30

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The request's body.

    Raises RequestError: 413 too large, 408 too slow, 400 no JSON, 422 wrong values, 499 the client left.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            raw = await _read_bytes(request)
    except ClientDisconnect:
        raise RequestError(CLIENT_GONE, "The client left before its body had arrived.", code="client_gone") from None
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive in {BODY_TIMEOUT_S} s.", code="timeout") from None
    try:
        content = json_text.parse(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RequestError(400, f"The body is not UTF-8 at byte {error.start}.", code="invalid_utf8") from None
    except ValueError as error:
        raise RequestError(400, f"The body is not JSON: {error}.", code="invalid_json") from None
    try:
        if b"\\u" in raw:
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
