"""Text as it is generated: whole characters only, and nothing of a stop string."""

from collections.abc import Callable

REPLACEMENT = "\ufffd"
MAX_HELD_TOKENS = 8
"""A character has at most four bytes: what is still broken after this many tokens is broken for good."""


class TextStream:
    """Turns token ids into text piece by piece.

    A byte-level tokenizer can cut a character into several tokens, and a tokenizer may treat a word's first token
    differently at the start of a text; so a piece is the difference between two decodings of a short window.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], stop: tuple[str, ...] = (), context: tuple[int, ...] = ()
    ) -> None:
        """`context`: the last tokens of a text that goes on with the first piece, its blank in between included."""
        self._decode, self._stop = decode, tuple(text for text in stop if text)
        self._window: list[int] = list(context)
        self._emitted = len(context)
        """Tokens at the window's start whose text is out already; they are context for the next ones."""
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain after `token`; sets `stopped` when a stop string is complete."""
        self._window.append(token)
        return self._release(self._new_text(final=False), final=False)

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.stopped else self._release(self._new_text(final=True), final=True)

    def _new_text(self, *, final: bool) -> str:
        before = self._decode(self._window[: self._emitted])
        now = self._decode(self._window)
        waiting = len(self._window) - self._emitted
        if now.endswith(REPLACEMENT) and waiting <= MAX_HELD_TOKENS and not final:
            return ""
        kept = self._window[self._emitted :]
        if self._decode(kept).strip():
            # Blanks alone are no context: at the start of a text a tokenizer may drop them, and then the next one's.
            self._window = kept
        self._emitted = len(self._window)
        return now[len(before) :]

    def _release(self, text: str, *, final: bool) -> str:
        self._held += text
        ends = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            released, self._held = self._held[: min(ends)], ""
            return released
        keep = 0 if final else max((_overlap(self._held, stop) for stop in self._stop), default=0)
        released, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
