"""The engine over transformers: one thread steps a batch that requests join and leave while it runs."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.engines.batch import Batch, Row
from pipelines.engines.grammar import Grammars
from pipelines.engines.lora import LowRank
from pipelines.engines.protocol import (
    Chunk,
    EngineFailed,
    FinishReason,
    Generation,
    GenerationRequest,
    Overloaded,
    Token,
)
from pipelines.engines.running import Running, all_answers
from pipelines.engines.seq2seq_batch import Seq2SeqBatch
from pipelines.engines.shared_base import SharedBase

PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, that are read between two steps: a crowd of newcomers must not stop the others."""


class TransformersEngine:
    """Generates with one base and several adapters; see `pipelines.engines.protocol.Engine`."""

    def __init__(
        self,
        base_folder: str | Path,
        adapters: Mapping[str, str | Path] | None = None,
        dtype: str = "auto",
        max_batch_size: int = 16,
        max_queued_requests: int = 64,
        base: SharedBase | None = None,
    ) -> None:
        """`base`: the same, loaded already."""
        self.base = base or SharedBase(base_folder, adapters, dtype)
        self._end_tokens = self.base.end_tokens
        width = int(self.base.config.get_text_config().vocab_size)
        self._grammars = Grammars(self.tokenizer, width, self._end_tokens)
        self.max_batch_size, self.max_queued_requests = max_batch_size, max_queued_requests
        self.generated_tokens = 0
        self._batch, self._running = self._empty_batch(), list[Running]()
        self._waiting: deque[Running] = deque()
        self._arriving: dict[str, dict[str, LowRank]] = {}
        self._leaving: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, deliver: Callable[[Chunk], None]) -> Running:
        """Take a request on; chunks come from the engine's thread. Raises as the protocol says."""
        return self._enqueue(request, deliver, bounded=True)

    def read_schema(self, schema: str) -> None:
        """Compile a schema ahead of its request. Raises SchemaRefused."""
        self._grammars.compiled(schema)

    def generate(
        self, requests: Sequence[GenerationRequest], on_done: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """All answers in the order of `requests`. Raises EngineFailed when one of them breaks."""
        return all_answers(partial(self._enqueue, bounded=False), requests, on_done)

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Let requests name one more adapter; what runs goes on, token for token as without it.

        Raises UserError for an adapter that cannot be used over this base and for a name that is taken, EngineFailed
        for an engine that is closed or has no room; the engine is then as it was.
        """
        updates = self.base.read(folder)
        with self._changed:
            if name in self.base.adapters or name in self._arriving:
                raise UserError(f"The engine has an adapter {name} already.", "Remove it first, or name another.")
            self._arriving[name] = updates
            self._changed.notify_all()
            self._changed.wait_for(lambda: name not in self._arriving or self._closed)
            if name not in self.base.adapters:
                self._arriving.pop(name, None)
                raise EngineFailed(f"The engine did not take the adapter {name}: it ended, or has no room for it.")

    def remove_adapter(self, name: str, timeout_s: float | None = None) -> bool:
        """Refuse new requests for an adapter from now on, and free its memory when those that it has have ended.

        Waits for that, at most `timeout_s` seconds; False: it is still to come, and will. Raises KeyError when there is
        no such adapter.
        """
        with self._changed:
            if name not in self.base.adapters:
                raise KeyError(f"no adapter {name!r}; there are {self.base.adapters}")
            self._leaving.add(name)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: name not in self._leaving or self._closed, timeout_s)

    @property
    def tokenizer(self) -> Any:
        """The base's."""
        return self.base.tokenizer

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.base.context

    @property
    def load(self) -> tuple[int, int]:
        """Requests that generate, and requests that wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread that generates still runs."""
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=60)

    def _enqueue(self, request: GenerationRequest, deliver: Callable[[Chunk], None], *, bounded: bool) -> Running:
        running = Running(
            request,
            deliver,
            self.tokenizer,
            room=self.context,
            ends=self._end_tokens,
            apart=self.base.is_seq2seq,
        )
        if request.json_schema is not None:
            running.grammar = self._grammars.start(request.json_schema)
        with self._changed:
            if self._closed:
                raise EngineFailed("The engine is closed.")
            there = [name for name in self.base.adapters if name not in self._leaving]
            if request.adapter is not None and request.adapter not in there:
                raise KeyError(f"no adapter {request.adapter!r}; there are {there}")
            if bounded and self._free_slots() + self.max_queued_requests <= len(self._waiting):
                raise Overloaded(f"{len(self._waiting)} requests wait already.")
            self._waiting.append(running)
            self._changed.notify_all()
        return running

    def _empty_batch(self) -> Batch | Seq2SeqBatch:
        return Seq2SeqBatch(self.base) if self.base.is_seq2seq else Batch(self.base)

    def _free_slots(self) -> int:
        return max(0, self.max_batch_size - len(self._running))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._waiting or self._running or self._arriving or self._leaving
                )
                if self._closed:
                    leaving = [*self._running, *self._waiting]
                    self._running, self._waiting = [], deque()
                    break
            try:
                self._drop_cancelled()
                self._change_adapters()
                self._admit()
                if self._running:
                    self._advance(self._running, self._batch.step())
            except Exception as error:  # whatever broke, the requests must hear of it and the thread must go on
                self._fail(f"{type(error).__name__}: {error}")
        for running in leaving:
            running.tell("", "cancelled")

    def _change_adapters(self) -> None:
        """Take in the adapters that were read, and forget those that are to go and have no request left."""
        with self._changed:
            if not (self._arriving or self._leaving):
                return
            try:
                while self._arriving:
                    name, updates = self._arriving.popitem()
                    try:
                        self.base.attach(name, updates)
                    except Exception:
                        # Without room for all of it there must be none of it.
                        self.base.detach(name)
                        raise
                used = {running.request.adapter for running in (*self._waiting, *self._running)}
                for name in self._leaving - used:
                    self.base.detach(name)
                    self._leaving.remove(name)
            finally:
                self._changed.notify_all()

    def _admit(self) -> None:
        """Move waiting requests into free slots, as many as one prefill may hold."""
        newcomers: list[Running] = []
        with self._changed:
            width = 0
            while self._waiting and len(newcomers) < self._free_slots():
                width = max(width, len(self._waiting[0].request.prompt))
                if newcomers and width * (len(newcomers) + 1) > PREFILL_TOKENS:
                    break
                newcomers.append(self._waiting.popleft())
            self._running = [*self._running, *newcomers]
        if newcomers:
            self._advance(
                newcomers, self._batch.join([Row.of(running.request, running.grammar) for running in newcomers])
            )

    def _advance(self, rows: list[Running], tokens: list[Token | None]) -> None:
        """Tell each of `rows` its new token; those that end leave, and hear so once their slot is free."""
        last = {}
        for running, token in zip(rows, tokens, strict=True):
            piece, reason, error = self._take(running, token)
            if reason is not None:
                last[id(running)] = (running, piece, reason, error)
            elif piece:
                running.tell(piece)
        self._keep(lambda running: id(running) not in last)
        for running, piece, reason, error in last.values():
            running.tell(piece, reason, error)

    def _take(self, running: Running, token: Token | None) -> tuple[str, FinishReason | None, str]:
        """The text that a new token adds, why the answer ends with it (if it does), and what went wrong."""
        if token is None:
            if running.grammar is not None:
                return "", "error", "the model's output is not a number, or its vocabulary cannot write the schema"
            return "", "error", "the model's output is not a number"
        self.generated_tokens += 1
        return *running.take(token), ""

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [running for running in (*self._waiting, *self._running) if running.cancelled]
            if gone:
                # By identity: one that is cancelled from here on leaves, and hears so, at the next step.
                leaving = {id(running) for running in gone}
                self._waiting = deque(running for running in self._waiting if id(running) not in leaving)
        if gone:
            self._keep(lambda running: id(running) not in leaving)
        for running in gone:
            running.tell("", "cancelled")

    def _keep(self, stays: Callable[[Running], bool]) -> None:
        kept = [index for index, running in enumerate(self._running) if stays(running)]
        self._batch.keep(kept)
        with self._changed:
            self._running = [self._running[index] for index in kept]

    def _fail(self, error: str) -> None:
        with self._changed:
            failed, self._running = self._running, []
        self._batch = self._empty_batch()
        for running in failed:
            running.tell("", "error", error)
