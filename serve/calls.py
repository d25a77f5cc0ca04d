"""Finding calls of tools in an answer as it comes in."""

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from serve import json_text

OPENING, CLOSING = "<tool_call>", "</tool_call>"
"""What Qwen, Hermes, SmolLM3 and others write around a call. Calls in other ways of writing stay text."""


@dataclass(frozen=True)
class Call:
    """A call, whole."""

    name: str
    arguments: str
    """JSON."""

    def told(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        function = {"name": self.name, "arguments": self.arguments}
        # Mistral's templates take no other ids than nine letters and digits.
        return {"id": uuid.uuid4().hex[:9], "type": "function", "function": function}


class CallReader:
    """Finds the calls in one answer as it comes in; what is none stays text."""

    def __init__(self, names: Collection[str], *, forced: bool) -> None:
        """`names`: of the functions; `forced`: the whole answer is a call, as `call_schema` says."""
        self._names, self._forced = tuple(names), forced
        self._held, self._blanks, self._after_call = "", "", False
        self.calls: list[Call] = []
        """That were found so far."""

    def read(self, text: str, *, last: bool) -> list[str | Call]:
        """What is known by now: texts and calls in their order. What may become a call is held until it is one."""
        self._held += text
        if self._forced:
            # Cut off in its middle it is no call.
            return [self._call(self._held) or self._held] if last else []
        found: list[str | Call] = []
        for part in self._parts(last=last):
            if isinstance(part, Call):
                # Calls are written on lines of their own: blanks beside them say nothing.
                self._blanks, self._after_call = "", True
                found.append(part)
            elif said := part.strip():
                before = "" if self._after_call else self._blanks + part[: len(part) - len(part.lstrip())]
                self._blanks, self._after_call = part[len(part.rstrip()) :], False
                found.append(before + said)
            elif not self._after_call:
                self._blanks += part
        if last and self._blanks:
            found.append(self._blanks)
        return found

    def _parts(self, *, last: bool) -> list[str | Call]:
        found: list[str | Call] = []
        while (start := self._held.find(OPENING)) >= 0:
            found.append(self._held[:start])
            end = self._held.find(CLOSING, start)
            if end < 0 and not last:
                self._held = self._held[start:]
                return found
            # A model may end its answer without closing the call.
            closed = end if end >= 0 else len(self._held)
            whole = self._held[start : closed + len(CLOSING)]
            found.append(self._call(self._held[start + len(OPENING) : closed]) or whole)
            self._held = self._held[closed + len(CLOSING) :]
        kept = 0 if last else next(n for n in range(len(OPENING) - 1, -1, -1) if self._held.endswith(OPENING[:n]))
        found.append(self._held[: len(self._held) - kept])
        self._held = self._held[len(self._held) - kept :]
        return found

    def _call(self, text: str) -> Call | None:
        try:
            content = json_text.parse(text)
        except ValueError:
            return None
        if not isinstance(content, dict) or content.get("name") not in self._names:
            return None
        arguments = content.get("arguments", {})
        if not isinstance(arguments, dict):
            return None
        try:
            written = json.dumps(arguments, ensure_ascii=False)
            # JSON can escape half a character, which no client can be sent.
            written.encode()
        except ValueError:
            return None
        self.calls.append(Call(content["name"], written))
        return self.calls[-1]
