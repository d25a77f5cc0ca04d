"""The engine over vLLM, for GPUs: paged caches, fused kernels, adapters in one batch. A CPU serves for tests."""

import asyncio
import itertools
import math
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from subprocess import Popen
from typing import Any, TypeVar

from cluster.connect import exported
from cluster.errors import UserError
from cluster.outlived import end_with_this
from pipelines.engines.protocol import (
    Chunk,
    EngineFailed,
    EngineOptions,
    FinishReason,
    Generation,
    GenerationRequest,
    Overloaded,
    SchemaRefused,
    Token,
)
from pipelines.engines.running import Running, all_answers
from pipelines.engines.schema import check_schema
from pipelines.engines.vllm_package import make_importable

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM can reserve memory."""
USUAL_RANK = 64
"""For adapters that come while it runs; one of its first adapters with a greater rank raises it."""
ADAPTERS_AT_ONCE = 4
"""In one batch: two arms, each with its next version while the last answers end."""
GPU_SHARE = 0.9
"""Of a GPU's memory, for weights and caches of all its engines."""
CPU_CACHE_BYTES = 2**30
"""For keys and values where there is no GPU."""
ENDING_S = 30
LOOK_S = 1.0
"""How often one who waits looks whether the engine has ended."""

T = TypeVar("T")


class VllmEngine:
    """Generates with one base and several adapters; see `pipelines.engines.protocol.Engine`.

    The model is in a process of vLLM's own; here one thread runs the loop that speaks with it.
    """

    def __init__(
        self,
        base_folder: str | Path,
        adapters: Mapping[str, str | Path],
        options: EngineOptions,
    ) -> None:
        """Load everything.

        Raises UserError when vLLM is not installed and for a model or an adapter that it does not serve, EngineFailed
        when it does not start.
        """
        make_importable()
        from pipelines.engines.adapters import linear_layers
        from pipelines.engines.ends import end_tokens
        from pipelines.models.kind import is_encoder_decoder
        from pipelines.models.load import load_tokenizer

        folder = Path(base_folder)
        if is_encoder_decoder(folder):
            raise UserError(f"{folder}: vLLM serves no encoder-decoders.", "Set cluster.engine: transformers.")
        asked = max([USUAL_RANK, options.lora_rank, *map(rank_of, adapters.values())])
        self.rank = next((rank for rank in RANKS if rank >= asked), RANKS[-1])
        self.tokenizer = load_tokenizer(folder)
        self._end_tokens = end_tokens(folder, self.tokenizer)
        self._layers = linear_layers(folder)
        self.max_batch_size, self.max_queued_requests = options.max_batch_size, options.max_queued_requests
        self.generated_tokens = 0
        self._numbers = itertools.count(1)
        self._running: set[_Task] = set()
        self._adapters: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._watch: Popen[str] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        try:
            started = asyncio.run_coroutine_threadsafe(_start(folder, options, self.rank), self._loop)
            self._llm = started.result()
        except Exception as error:
            self._end_loop()
            raise EngineFailed(f"vLLM did not start with {folder}: {_reason(error)}") from error
        try:
            # Killed, this process could not end them, and they would keep the GPU's memory.
            self._watch = end_with_this(_processes(self._llm))
            # Less than the model's own where the memory is.
            self.context = int(self._llm.model_config.max_model_len)
            self._vocabulary = int(self._llm.model_config.get_vocab_size())
            for name, adapter in adapters.items():
                self.add_adapter(name, adapter)
        except BaseException:
            self.close()
            raise

    def submit(self, request: GenerationRequest, deliver: Callable[[Chunk], None]) -> Running:
        """Take a request on; chunks come from the engine's thread. Raises as the protocol says."""
        return self._enqueue(request, deliver, bounded=True)

    def read_schema(self, schema: str) -> None:
        """Raise SchemaRefused for what would fail a request later; vLLM compiles by itself, beside its steps."""
        _read_schema(schema)

    def generate(
        self, requests: Sequence[GenerationRequest], on_done: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """All answers in the order of `requests`. Raises EngineFailed when one of them breaks."""
        return all_answers(partial(self._enqueue, bounded=False), requests, on_done)

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Let requests name one more adapter.

        Raises UserError for an adapter that cannot be used over this base and for a name that is taken, EngineFailed
        for an engine that has ended; the engine is then as it was.
        """
        from vllm.lora.request import LoRARequest

        from pipelines.engines.adapters import check_shapes

        # What vLLM stumbles over ends its process.
        check_shapes(Path(folder), self._layers)
        if (rank := rank_of(folder)) > self.rank:
            raise UserError(
                f"{folder}: the engine was started for adapters of rank {self.rank} at most, and this has {rank}.",
                "Start the service anew: it makes room for what is in production then."
                if rank <= RANKS[-1]
                else f"vLLM takes ranks up to {RANKS[-1]}: set cluster.engine: transformers.",
            )
        with self._changed:
            if name in self._adapters:
                raise UserError(f"The engine has an adapter {name} already.", "Remove it first, or name another.")
        number = next(self._numbers)
        # vLLM remembers prompts by the adapter's name: another one under it must not meet them.
        lora = LoRARequest(f"{name}-{number}", number, str(folder))
        try:
            self._wait(self._llm.add_lora(lora))
        except Exception as error:
            if not self.alive:
                raise EngineFailed(f"The engine ended before it took the adapter {name}.") from error
            raise UserError(
                f"{folder}: vLLM does not take the adapter: {_reason(error)}", "Use its own base."
            ) from None
        with self._changed:
            self._adapters[name] = lora

    def remove_adapter(self, name: str, timeout_s: float | None = None) -> bool:
        """Refuse new requests for an adapter from now on, and free its memory when those that it has have ended.

        Waits for that, at most `timeout_s` seconds; False: vLLM will drop it when it wants its memory for another.
        Raises KeyError when there is no such adapter.
        """
        with self._changed:
            lora = self._adapters.pop(name, None)
            if lora is None:
                raise KeyError(f"no adapter {name!r}; there are {list(self._adapters)}")
            if not self._changed.wait_for(
                lambda: self._closed or all(task.request.adapter != name for task in self._running), timeout_s
            ):
                return False
        if self.alive:
            self._wait(self._llm.remove_lora(lora.lora_int_id))
        return True

    @property
    def load(self) -> tuple[int, int]:
        """Requests that generate, and requests that wait."""
        with self._changed:
            count = len(self._running)
        return min(count, self.max_batch_size), max(0, count - self.max_batch_size)

    @property
    def alive(self) -> bool:
        """Whether the process that generates still runs."""
        return not self._has_ended()

    def close(self) -> None:
        """Cancel everything and end the processes."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
            self._changed.notify_all()
        for task in running:
            task.cancel()
        with self._changed:
            self._changed.wait_for(lambda: not self._running, ENDING_S)
        self._llm.shutdown(timeout=ENDING_S)
        if self._watch is not None:
            self._watch.communicate()
        self._end_loop()

    def _enqueue(self, request: GenerationRequest, deliver: Callable[[Chunk], None], *, bounded: bool) -> Running:
        task = _Task(request, deliver, self.tokenizer, room=self.context, ends=self._end_tokens)
        task.loop = self._loop
        if max(request.prompt) >= self._vocabulary:
            # In vLLM it would end the process, and everybody's answers.
            raise EngineFailed(f"Token {max(request.prompt)} is beyond the model's vocabulary.")
        if request.json_schema is not None:
            if request.logprobs is not None:
                # Those that vLLM tells are of what the schema left, not what the model gave.
                raise SchemaRefused("vLLM tells no probabilities beside a schema: ask for one of the two.")
            self.read_schema(request.json_schema)
        with self._changed:
            if self._closed:
                raise EngineFailed("The engine is closed.")
            if request.adapter is not None and request.adapter not in self._adapters:
                raise KeyError(f"no adapter {request.adapter!r}; there are {list(self._adapters)}")
            waiting = len(self._running) - self.max_batch_size
            if bounded and waiting >= self.max_queued_requests:
                raise Overloaded(f"{waiting} requests wait already.")
            lora = self._adapters[request.adapter] if request.adapter is not None else None
            self._running.add(task)
        self._loop.call_soon_threadsafe(self._begin, task, lora)
        return task

    def _begin(self, task: "_Task", lora: Any) -> None:
        task.work = self._loop.create_task(self._answer(task, lora))
        task.work.add_done_callback(partial(self._ended, task))
        if task.cancelled:
            task.work.cancel()

    async def _answer(self, task: "_Task", lora: Any) -> tuple[str, FinishReason]:
        """Generate and tell; returns the last piece and why it is the last."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        asked = task.request
        params = SamplingParams(
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=None if asked.seed is None else asked.seed % 2**63,
            max_tokens=task.most,
            stop_token_ids=sorted(self._end_tokens),
            # Asked always: what the model gave the chosen token shows whether it gave numbers.
            logprobs=asked.logprobs or 0,
            structured_outputs=_following(asked.json_schema),
            # Text, stop strings and ends are made of the tokens as in the other engine, to the letter.
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        outputs = self._llm.generate(_prompt(asked.prompt), params, f"answer-{next(self._numbers)}", lora_request=lora)
        try:
            async for output in outputs:
                piece = ""
                for token in read_tokens(output.outputs[0], asked.logprobs):
                    self.generated_tokens += 1
                    text, reason = task.take(token)
                    piece += text
                    if reason is not None:
                        return piece, reason
                if piece:
                    task.tell(piece)
                if task.cancelled:
                    return "", "cancelled"
        finally:
            # Frees its place in the batch when the end was found here: a stop string.
            await outputs.aclose()
        raise EngineFailed("vLLM ended the answer without a reason")

    def _ended(self, task: "_Task", done: "asyncio.Task[tuple[str, FinishReason]]") -> None:
        """Free the place of a request, and then tell its end."""
        with self._changed:
            self._running.discard(task)
            self._changed.notify_all()
        if done.cancelled():
            task.tell("", "cancelled")
        elif error := done.exception():
            task.tell("", "error", _reason(error))
        else:
            task.tell(*done.result())

    def _wait(self, work: "Coroutine[Any, Any, T]") -> T:
        """The result of what is done in the engine's thread. Raises EngineFailed when the engine ends meanwhile."""
        if self._has_ended():
            work.close()
            raise EngineFailed("The engine has ended.")
        done = asyncio.run_coroutine_threadsafe(work, self._loop)
        while True:
            try:
                return done.result(LOOK_S)
            except TimeoutError:
                if done.done():
                    # It came just now, or a time-out is what came.
                    return done.result()
                if self._has_ended():
                    # Whoever would answer is gone, and vLLM waits on.
                    done.cancel()
                    raise EngineFailed("The engine has ended.") from None

    def _has_ended(self) -> bool:
        return self._closed or self._llm.errored

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=ENDING_S)


class _Task(Running):
    """A request and what answers it."""

    loop: asyncio.AbstractEventLoop
    work: "asyncio.Task[tuple[str, FinishReason]] | None" = None

    def cancel(self) -> None:
        """Leave the batch (or the queue) now."""
        super().cancel()
        self.loop.call_soon_threadsafe(self._cancel_work)

    def _cancel_work(self) -> None:
        if self.work is not None:
            self.work.cancel()


def rank_of(adapter: str | Path) -> int:
    """The greatest rank of an adapter's layers. Raises UserError for a folder that holds none that can be served."""
    from pipelines.engines.adapters import check_folder

    config = check_folder(Path(adapter))
    if config.use_dora:
        raise UserError(f"{adapter}: vLLM serves no DoRA.", "Set cluster.engine: transformers, or train plain LoRA.")
    return max(int(rank) for rank in (config.r, *config.rank_pattern.values()))


def _processes(llm: Any) -> list[int]:
    """Numbers of the processes that a vLLM has started, those of its own children too."""
    import psutil

    cores = [process.pid for process in llm.engine_core.resources.engine_manager.processes]
    return [*cores, *(child.pid for core in cores for child in psutil.Process(core).children(recursive=True))]


async def _start(folder: Path, options: EngineOptions, rank: int) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    from pipelines.models.precision import arithmetic

    # Its build for CPUs computes there whatever torch sees.
    gpu = bool(current_platform.is_cuda_alike())
    where = {"gpu_memory_utilization": GPU_SHARE / options.engines} if gpu else _on_cpus()
    # For the processes that start meanwhile: in this one torch has read its own.
    with exported({} if gpu else {"TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": str(threads())}):
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(folder),
                dtype=arithmetic(options.dtype, "cuda" if gpu else "cpu"),
                load_format="safetensors",
                # As long as the memory allows, at most the model's own.
                max_model_len=-1,
                max_num_seqs=options.max_batch_size,
                enable_lora=True,
                max_loras=ADAPTERS_AT_ONCE,
                max_lora_rank=rank,
                # What the model's publisher thinks of sampling is not what the client asked for.
                generation_config="vllm",
                structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
                # Compiling is minutes on a CPU, each time; TORCH_COMPILE_DISABLE is for its samplers.
                enforce_eager=not gpu,
                disable_log_stats=True,
                **where,
            )
        )


def _on_cpus() -> dict[str, Any]:
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    # As on a GPU, one process schedules and computes; by default another one computes, which begins a dozen seconds
    # later, on one core less.
    return {"kv_cache_memory_bytes": CPU_CACHE_BYTES, "distributed_executor_backend": UniProcExecutor}


def threads() -> int:
    """As many as will compute: vLLM shares its work out beforehand, and where a thread does not come are no numbers."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(os.environ.get("OMP_THREAD_LIMIT") or cores))


@lru_cache(64)
def _read_schema(schema: str) -> None:
    from vllm import SamplingParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    check_schema(schema)
    try:
        validate_xgrammar_grammar(SamplingParams(structured_outputs=_following(schema)))
    except Exception as error:  # vLLM's own, which are no family of Python's
        raise SchemaRefused(f"The schema cannot be followed: {_reason(error)}") from None


def _following(schema: str | None) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return None if schema is None else StructuredOutputsParams(json=schema, disable_any_whitespace=True)


def read_tokens(output: Any, count: int | None) -> list[Token]:
    """The tokens of a piece of vLLM's output, with the probabilities of the `count` likeliest.

    Raises EngineFailed where what the model gave is not a number. On CPUs others' answers may be next: what vLLM has
    cached of this one is still there when its memory is theirs.
    """
    found = []
    for token, told in zip(output.token_ids, output.logprobs, strict=True):
        if not math.isfinite(told[token].logprob):
            raise EngineFailed("the model's output is not a number")
        if count is None:
            found.append(Token(token))
            continue
        # The chosen one is there too, whatever its rank.
        ranked = sorted(told.items(), key=lambda item: item[1].rank)[:count]
        found.append(Token(token, told[token].logprob, tuple((other, one.logprob) for other, one in ranked)))
    return found


def _prompt(tokens: Sequence[int]) -> Any:
    from vllm.inputs.engine import tokens_input

    return tokens_input(list(tokens))


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[-1][:300]
