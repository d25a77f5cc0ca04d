"""A request from its arrival to its last chunk."""

import threading
from collections.abc import Callable

from pipelines.engines.batch import Row
from pipelines.engines.protocol import Chunk, FinishReason, Generation, GenerationRequest
from pipelines.engines.sampling import Sampler
from pipelines.engines.text import TextStream


class Running:
    """A request from its arrival to its last chunk; also the ticket that its owner holds."""

    def __init__(self, request: GenerationRequest, deliver: Callable[[Chunk], None], text: TextStream) -> None:
        self.request, self.text = request, text
        self.row = Row(request.prompt, request.adapter, Sampler.of(request.temperature, request.top_p, request.seed))
        self.cancelled = False
        self.tokens = 0
        self._deliver, self._reported = deliver, 0

    def cancel(self) -> None:
        """Leave the batch (or the queue) at the next step."""
        self.cancelled = True

    def tell(self, text: str, finish_reason: FinishReason | None = None, error: str = "") -> None:
        """Deliver a chunk; a listener that fails has gone away."""
        chunk = Chunk(text, self.tokens - self._reported, finish_reason, error)
        self._reported = self.tokens
        try:
            self._deliver(chunk)
        except Exception:
            self.cancelled = True


class Collector:
    """Gathers the chunks of one request of a batch."""

    def __init__(
        self,
        index: int,
        results: list[Generation | None],
        errors: list[str],
        left: threading.Semaphore,
        on_done: Callable[[int, Generation], None] | None,
    ) -> None:
        self._index, self._results, self._errors, self._left = index, results, errors, left
        self._on_done = on_done
        self._pieces: list[str] = []
        self._tokens = 0

    def __call__(self, chunk: Chunk) -> None:
        """Take a chunk, and count the request off with its last."""
        self._pieces.append(chunk.text)
        self._tokens += chunk.tokens
        if chunk.finish_reason is None:
            return
        try:
            if chunk.finish_reason == "error":
                self._errors.append(chunk.error)
                return
            done = Generation("".join(self._pieces), self._tokens, chunk.finish_reason)
            self._results[self._index] = done
            if self._on_done:
                self._on_done(self._index, done)
        except Exception as error:
            self._errors.append(f"the listener failed: {error!r}")
        finally:
            self._left.release()
