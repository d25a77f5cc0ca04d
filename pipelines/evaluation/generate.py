"""Answers and losses of the candidates on the test examples, by Ray actors over the engine that also serves."""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.connect import uses_gpu
from cluster.errors import StageFailed, UserError
from pipelines.engines.protocol import EngineKind
from pipelines.models.candidate import Candidate
from pipelines.progress import Progress
from pipelines.recipe import Cluster

if TYPE_CHECKING:
    from pipelines.engines.protocol import Engine
    from pipelines.engines.shared_base import SharedBase

Messages = Sequence[dict[str, str]]


class EvaluationFailed(StageFailed):
    """A candidate could not be loaded or could not answer; the message names it."""


@dataclass(frozen=True)
class Plan:
    """How to generate."""

    dtype: str
    max_new_tokens: int
    batch_size: int
    engine: EngineKind = "transformers"


@dataclass(frozen=True)
class Event:
    """What a worker tells: kind `loss` (sum, tokens), `answer` (text, tokens, finish reason), `too_long` or `rate`."""

    kind: str
    arm: str
    example: int = -1
    value: tuple[Any, ...] = ()


@dataclass
class Answers:
    """One candidate on all examples; None where an example does not fit the model's context."""

    texts: list[str | None]
    losses: list[tuple[float, int] | None]
    """Summed nats and supervised tokens."""
    truncated: int = 0
    """Answers that were cut at max_new_tokens."""


@dataclass
class Results:
    """All candidates on all examples."""

    arms: dict[str, Answers]
    too_long: set[int] = field(default_factory=set)
    tokens_per_second: float = 0.0
    """Generated, over all workers."""


class EvaluationWorker:
    """Runs candidates over its share of the examples; an actor."""

    def evaluate(
        self, candidates: Mapping[str, Candidate], examples: Mapping[int, Messages], plan: Plan
    ) -> Iterator[Event]:
        """Losses and answers as they come. Candidates over one base share it in memory."""
        events: queue.Queue[Event | Exception | None] = queue.Queue()

        def work() -> None:
            try:
                by_base: dict[str, dict[str, Candidate]] = {}
                for arm, recorded in candidates.items():
                    candidate = _here(arm, recorded)
                    by_base.setdefault(candidate.base_folder, {})[arm] = candidate
                for together in by_base.values():
                    _evaluate_base(together, examples, plan, events)
                events.put(None)
            except Exception as error:
                events.put(error)

        threading.Thread(target=work, daemon=True).start()
        while (event := events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


def _here(arm: str, recorded: Candidate) -> Candidate:
    from pipelines.workspace import Workspace

    try:
        return recorded.here(Workspace())
    except UserError as error:
        raise EvaluationFailed(f"{arm} cannot be loaded: {error.message}", error.remedy) from error


def _evaluate_base(
    candidates: dict[str, Candidate], examples: Mapping[int, Messages], plan: Plan, events: "queue.Queue[Any]"
) -> None:
    from pipelines.data.chat import encode, prompt_tokens
    from pipelines.engines.protocol import Generation, GenerationRequest
    from pipelines.engines.scoring import answer_losses
    from pipelines.engines.shared_base import SharedBase

    first = next(iter(candidates.values()))
    adapters = {arm: one.adapter_folder for arm, one in candidates.items() if one.adapter_folder is not None}
    try:
        base = SharedBase(first.base_folder, adapters, plan.dtype)
    except Exception as error:
        raise EvaluationFailed(f"{' and '.join(candidates)} cannot be loaded: {error}") from error
    tokenizer, room = base.tokenizer, base.context
    encoded = {index: encode(tokenizer, messages) for index, messages in examples.items()}
    prompts = {index: tuple(prompt_tokens(tokenizer, messages)) for index, messages in examples.items()}
    fits = [i for i in examples if len(encoded[i].tokens) <= room and len(prompts[i]) < room]
    for index in examples.keys() - set(fits):
        events.put(Event("too_long", first.name, index))
    # Whatever generates, losses are what training would find.
    for arm in candidates:
        adapter = arm if arm in adapters else None
        conversations = [(encoded[index].tokens, encoded[index].supervised) for index in fits]
        # Scored in slices, so that progress shows.
        for start in range(0, len(fits), plan.batch_size):
            part = slice(start, start + plan.batch_size)
            found = answer_losses(base, adapter, conversations[part])
            for index, loss in zip(fits[part], found, strict=True):
                events.put(Event("loss", arm, index, loss))
    try:
        engine = _engine(plan, first.base_folder, adapters, base)
    except Exception as error:
        raise EvaluationFailed(f"{' and '.join(candidates)} cannot be generated with: {error}") from error
    del base
    try:
        # vLLM may have memory for less than the model's context.
        room = engine.context
        for index in [i for i in fits if len(prompts[i]) >= room]:
            events.put(Event("too_long", first.name, index))
            fits.remove(index)
        jobs = [(arm, index) for arm in candidates for index in fits]
        requests = [
            GenerationRequest(prompts[index], arm if arm in adapters else None, plan.max_new_tokens)
            for arm, index in jobs
        ]

        def tell(job: int, answer: Generation) -> None:
            arm, index = jobs[job]
            events.put(Event("answer", arm, index, (answer.text, answer.completion_tokens, answer.finish_reason)))

        started = time.monotonic()
        answers = engine.generate(requests, tell)
        tokens = sum(answer.completion_tokens for answer in answers)
        events.put(Event("rate", first.name, value=(tokens, time.monotonic() - started)))
    finally:
        engine.close()


def _engine(plan: Plan, base_folder: str, adapters: Mapping[str, str], base: "SharedBase") -> "Engine":
    """What generates; over `base` itself where it can."""
    from pipelines.engines.protocol import EngineOptions, open_engine
    from pipelines.engines.transformers import TransformersEngine

    if plan.engine == "transformers":
        return TransformersEngine(base_folder, adapters, plan.dtype, plan.batch_size, base=base)
    base.release()
    return open_engine(base_folder, adapters, EngineOptions(plan.engine, plan.dtype, plan.batch_size))


def run_candidates(
    candidates: Mapping[str, Candidate],
    examples: Sequence[Messages],
    plan: Plan,
    cluster: Cluster,
    progress: Progress,
) -> Results:
    """Every candidate on every example, on one actor per GPU or one on the CPU, as training would; Ray was joined.

    Raises EvaluationFailed that names the candidate which broke.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    decided = cluster.model_copy(update={"use_gpu": uses_gpu(cluster.use_gpu, cluster.accelerator_type)})
    count, options = placement(decided, gpus, len(examples))
    actor: Any = ray.remote(EvaluationWorker)
    workers = [actor.options(**options).remote() for _ in range(count)]
    share = [{i: examples[i] for i in range(number, len(examples), count)} for number in range(count)]
    streams = [
        worker.evaluate.options(num_returns="streaming").remote(dict(candidates), part, plan)
        for worker, part in zip(workers, share, strict=True)
    ]
    try:
        return _collect(streams, list(candidates), len(examples), progress)
    except RayTaskError as error:
        cause = error.cause or error
        message = cause.message if isinstance(cause, StageFailed) else f"{type(cause).__name__}: {cause}"
        raise EvaluationFailed(f"The evaluation stopped: {message}", "Mend the candidate and start again.") from error
    except RayActorError as error:
        raise EvaluationFailed(
            "The evaluation stopped: the process that generated died, most likely for want of memory.",
            "Lower evaluate.batch_size or evaluate.max_new_tokens.",
        ) from error
    finally:
        for worker in workers:
            ray.kill(worker)


def placement(cluster: Cluster, gpus: int, examples: int) -> tuple[int, dict[str, Any]]:
    """How many actors, and what each asks of Ray; `gpus` are those of the nodes that are there now. Pure."""
    if cluster.use_gpu is False or (cluster.use_gpu == "auto" and not gpus):
        # Ray leaves a node's GPUs in sight of an actor that asks for none, and torch would take one.
        hidden = {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}} if gpus else {}
        return 1, {"num_cpus": 1, "num_gpus": 0} | hidden
    # Nodes with GPUs may start only when somebody asks for them: then as many as training asked for.
    wanted = {"num_cpus": 1, "num_gpus": 1}
    kind = {"accelerator_type": cluster.accelerator_type} if cluster.accelerator_type else {}
    return max(1, min(gpus or cluster.num_workers, examples)), wanted | kind


def _collect(streams: list[Any], arms: list[str], examples: int, progress: Progress) -> Results:
    import ray

    results = Results({arm: Answers([None] * examples, [None] * examples) for arm in arms})
    done = 0
    with progress.bar("evaluate", total=2 * len(arms) * examples) as bar:
        while streams:
            ready: list[Any] = ray.wait(streams, num_returns=1)[0]
            try:
                found: Any = ray.get(next(ready[0]))
            except StopIteration:
                streams.remove(ready[0])
                continue
            event: Event = found
            if event.kind == "rate":
                results.tokens_per_second += event.value[0] / max(event.value[1], 1e-9)
                continue
            if event.kind == "too_long":
                results.too_long.add(event.example)
                done += 2 * len(arms)
            elif event.kind == "loss":
                results.arms[event.arm].losses[event.example] = (event.value[0], event.value[1])
                done += 1
            else:
                text, _, reason = event.value
                results.arms[event.arm].texts[event.example] = text
                results.arms[event.arm].truncated += reason == "length"
                done += 1
            bar.update(min(done, 2 * len(arms) * examples), f"{event.arm}: {event.kind}")
    return results
