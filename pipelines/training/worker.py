"""The training loop: what runs on each worker, from the first bin to the exported weights."""

import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm

from cluster.errors import StageFailed, UserError
from pipelines.data.packing import shuffled
from pipelines.fingerprint import folder_fingerprint, short
from pipelines.models.load import base_here
from pipelines.models.precision import Arithmetic, arithmetic
from pipelines.recipe import Train
from pipelines.training.bins import BinFile, micro_batches, step_bins
from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.engine import build_model, export, prepare_process, start_engine, zero_stage
from pipelines.training.engine_state import load_engine, save_engine
from pipelines.training.job import Job, State
from pipelines.training.losses import Batch
from pipelines.training.preemption import Preemption
from pipelines.training.schedule import learning_rate
from pipelines.training.stopping import Stopping
from pipelines.training.timeline import Timeline
from pipelines.training.uploads import Uploads
from pipelines.workspace import Workspace

STOP_POLL_S = 2.0

T = TypeVar("T")


class Diverged(StageFailed):
    """The loss or a gradient is no longer a number."""


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's function: the outcome of the run (rank 0's is the result)."""
    import ray.train

    context = ray.train.get_context()
    return run_loop(
        config["job"],
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        mailbox=config.get("mailbox"),
        report=ray.train.report,
        preemption=ray.train.get_preemption_info,
    )


def run_loop(
    job: Job,
    *,
    rank: int,
    world: int,
    mailbox: Any = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    preemption: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Train as the job says inside an existing process group.

    What a person can mend comes back as {"status": "failed", ...}; Ray would restart on an exception.
    """
    try:
        return Loop(job, rank, world, mailbox, report, preemption).run()
    except UserError as error:
        return {"status": "failed", "message": error.message, "remedy": error.remedy}


def refuse_together(problem: UserError | None, world: int) -> None:
    """Raise the first worker's problem on every worker: the others would wait for it for ever."""
    told: list[Any] = [None] * world
    dist.all_gather_object(told, (problem.message, problem.remedy) if problem else None)
    for found in told:
        if found:
            raise UserError(*found)


def agreed_arithmetic(wanted: str, device: str, world: int) -> Arithmetic:
    """What every worker can do well: they all compute in the same."""
    told: list[Any] = [None] * world
    dist.all_gather_object(told, arithmetic(wanted, device))
    return "bfloat16" if set(told) == {"bfloat16"} else "float32"


class Loop:
    """One worker's part of a run."""

    def __init__(
        self,
        job: Job,
        rank: int,
        world: int,
        mailbox: Any,
        report: Callable[[dict[str, Any]], None] | None,
        preemption: Callable[[], Any] | None = None,
    ) -> None:
        self.job, self.rank, self.world, self.mailbox, self.report = job, rank, world, mailbox, report
        self.preemption = Preemption(preemption, rank)
        self.train, self.plan = Train.model_validate(job.train), job.plan
        self.device = torch.device(f"cuda:{torch.cuda.current_device()}") if job.device == "cuda" else "cpu"
        prepare_process(job.device, job.seed)
        self.train = self.train.model_copy(update={"dtype": agreed_arithmetic(self.train.dtype, job.device, world)})
        self.workspace = Workspace()
        problem: UserError | None = None
        try:
            folder = self.workspace.fetch(job.bins)
            self.bins, self.validation = BinFile(folder / "train.arrow"), BinFile(folder / "validation.arrow")
            self.base_folder = self._base_here()
            model = build_model(self.train, self.base_folder, job.seed)
        except UserError as error:
            problem = error
        refuse_together(problem, world)
        self.engine = start_engine(model, self.train, world)
        self.store = CheckpointStore(job.checkpoints) if job.checkpoints else None
        self.uploads: Uploads | None = None
        self.timeline = Timeline()
        self._learnt: list[list[int]] = []
        self.state = State(stopping=Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold))
        self._polled = 0.0

    def _base_here(self) -> Path:
        """The base on this worker's machine, the very one that the driver saw."""
        base = self.job.base
        return base_here(base["folder"], base["name"], base["revision"], base["fingerprint"], self.workspace.settings)

    def run(self) -> dict[str, Any]:
        """Resume or begin, train, export; the outcome."""
        try:
            return self._run()
        finally:
            if self.uploads:
                # Whatever ends the run: a checkpoint that is on its way arrives.
                self.uploads.wait()

    def _run(self) -> dict[str, Any]:
        self._resume()
        self._say("started", pid=os.getpid(), step=self.state.step, steps=self.plan.steps, values=self.job.values)
        if self.state.baseline_loss is None and not self.job.rungs:
            self.state.baseline_loss = self._validate()
            self._say("baseline", step=0, loss=self.state.baseline_loss)
        stopped = "the last step"
        while self.state.step < self.plan.steps:
            if self.state.stopping.exhausted and not self.job.rungs:
                stopped = (
                    f"no improvement in {self.train.early_stopping_patience} validations "
                    f"(best at step {self.state.stopping.best_step})"
                )
                break
            asked = self._step()
            validates = self.state.step in self.job.rungs if self.job.rungs else self.plan.validates(self.state.step)
            if validates:
                self._validated()
            leaving = self.preemption.noticed()
            if self.store and (validates or asked or leaving):
                self._checkpoint()
            if leaving:
                self._say("preempted", step=self.state.step, seconds=self.preemption.seconds_left())
                # Before the machine goes; if it does not arrive, an older one is there to go on from.
                self._arrived()
            if asked:
                refuse_together(self._arrived(), self.world)
                return self._outcome("stopped", "stop requested")
        return self._finish(stopped)

    def _finish(self, stopped: str) -> dict[str, Any]:
        """The best weights, exported and kept."""
        outcome = self._outcome("finished", stopped)
        if not self.store:
            return outcome
        outcome["least_visits"], outcome["most_visits"] = self.timeline.visits(len(self.bins))
        self._arrived()
        best = self.state.stopping.best_step
        if best not in (0, self.state.step):
            if problem := self._load(best, weights_only=True):
                self._say("damaged", step=best, problem=problem)
            else:
                outcome["kept_step"] = best
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch, "model")
            export(self.engine, self.train, self.base_folder, self.job.base, target, self.rank)
            if self.rank == 0:
                # Named by its content: a fresh start must not write over weights that somebody evaluated or serves.
                outcome["model"] = self.workspace.keep(target, *self.job.model, short(folder_fingerprint(target)))
        dist.barrier()
        return outcome

    def _outcome(self, status: str, stopped: str) -> dict[str, Any]:
        last = self.state.history[-1] if self.state.history else {}
        return {
            "status": status,
            "stopped_because": stopped,
            "dtype": self.train.dtype,
            "kept_step": self.state.step,
            "last_validation_loss": last.get("validation_loss"),
            "last_train_loss": last.get("train_loss"),
        } | self.state.as_json()

    def _step(self) -> bool:
        """One optimiser step over the global batch; whether a stop was asked for."""
        state, train = self.state, self.train
        started = time.monotonic()
        numbers = self._numbers(state.step)
        total = sum(self.bins.taught[i] for i in numbers if i is not None)
        # Seeded by step and rank: dropout is the same after a resume.
        torch.manual_seed(self.job.seed * 1_000_003 + state.step * self.world + self.rank)
        rate = learning_rate(train, self.plan, state.step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        summed, nothing_lost, norm = 0.0, True, None
        learnt: list[int] = []
        for micro in micro_batches(numbers, self.rank, self.world, train.per_device_train_batch_size):
            batch = self._batch(self.bins, micro)
            loss = self.engine(batch.tokens, batch.positions, batch.targets)
            # Normalised by the supervised tokens of the whole step: DeepSpeed averages over the workers, hence
            # the factor, and must not divide by the accumulation as well.
            self.engine.backward(loss * (self.world / max(1, total)), scale_wrt_gas=False)
            norm = self._gradient_norm()
            self.engine.step()
            summed += float(loss.detach())
            nothing_lost = nothing_lost and math.isfinite(summed)
            learnt += [i for i in micro if i is not None]
        norm = self.engine.get_global_grad_norm() if norm is None else norm
        norm = None if norm is None else float(norm)
        asked, tokens, polls = self._stop_asked(), sum(self.bins.sizes[i] for i in learnt), self.preemption.due()
        lost = not nothing_lost
        sums = self._sum([0.0 if lost else summed, float(lost), float(asked), float(tokens), float(polls)])
        if sums[1] or not math.isfinite(norm or 0.0):
            self._diverged(numbers, norm)
        state.step += 1
        self._learnt.append(learnt)
        if sums[4]:
            # Every worker at the same step: Ray's answer to rank 0 is the answer to all.
            self.preemption.poll()
        seconds = time.monotonic() - started
        state.supervised_tokens += total
        state.tokens += int(sums[3])
        state.seconds += seconds
        state.since_loss += sums[0]
        state.since_tokens += total
        self._say(
            "step",
            step=state.step,
            loss=sums[0] / max(1, total),
            learning_rate=rate,
            tokens_per_second=sums[3] / seconds,
            supervised_tokens_per_second=total / seconds,
            **({} if norm is None else {"grad_norm": norm}),
        )
        return sums[2] > 0

    def _numbers(self, step: int) -> list[int | None]:
        epoch, within = divmod(step, self.plan.steps_per_epoch)
        order = shuffled(len(self.bins), self.job.seed, epoch)
        return step_bins(order, self.bins.sizes, within, self.train.global_batch_size)

    def _batch(self, side: BinFile, numbers: list[int | None]) -> Batch:
        return Batch.of([side.read(number) for number in numbers], self.device)

    def _gradient_norm(self) -> float | None:
        """Before clipping, where DeepSpeed keeps none: at stage 0, whose gradients are whole on every worker."""
        if zero_stage(self.train) or not self.engine.is_gradient_accumulation_boundary():
            return None
        return float(get_total_norm([p.grad for p in self.engine.parameters() if p.grad is not None]))

    def _diverged(self, numbers: list[int | None], norm: float | None) -> None:
        ids = [example for i in numbers if i is not None for example in self.bins.read(i).ids]
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        raise Diverged(
            f"Training diverged at step {self.state.step + 1}: the loss or its gradient"
            f"{'' if norm is None else f' (norm {norm:g})'} is no number. The step learnt from examples {shown}.",
            "Look at these examples, lower train.learning_rate, or lengthen train.warmup_steps.",
        )

    def _validated(self) -> None:
        state = self.state
        loss = self._validate()
        train_loss = state.since_loss / max(1, state.since_tokens)
        state.since_loss, state.since_tokens = 0.0, 0
        state.stopping = state.stopping.after(state.step, loss)
        state.history.append({"step": state.step, "train_loss": train_loss, "validation_loss": loss})
        self._say("validation", step=state.step, loss=loss, train_loss=train_loss)
        if self.report:
            self.report({"step": state.step, "validation_loss": loss, "train_loss": train_loss})

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean loss over the supervised tokens of the validation side, all workers together."""
        self.engine.eval()
        # A trial's choice is seeded: the first bins hold the longest examples.
        chosen = shuffled(len(self.validation), self.job.seed, 0)[: self.job.validation_bins]
        # Of like length together; each worker the same number of passes, or ZeRO-3 would wait for ever.
        order = sorted(chosen, key=lambda i: (-self.validation.sizes[i], i))
        width = self.train.per_device_train_batch_size
        fill = -len(order) % (self.world * width)
        numbers: list[int | None] = [*order, *[None] * fill]
        summed = 0.0
        for micro in micro_batches(numbers, self.rank, self.world, width):
            batch = self._batch(self.validation, micro)
            summed += float(self.engine(batch.tokens, batch.positions, batch.targets))
        self.engine.train()
        total = sum(self.validation.taught[i] for i in order)
        return self._sum([summed])[0] / max(1, total)

    def _resume(self) -> None:
        if not self.store:
            return
        for step in reversed(self._share(self.store.complete() if self.rank == 0 else [])):
            problem = self._load(step)
            if problem is None:
                self._forget_lost_best(step)
                self._say("resumed", step=step, steps=self.plan.steps)
                break
            if self.rank == 0:
                self.store.set_aside(step)
            self._say("damaged", step=step, problem=problem)
        if self.rank == 0:
            self.store.discard_unfinished()
        # Shared after it: nobody writes before the leftovers are gone.
        attempt = self._share(uuid.uuid4().hex)
        self.uploads = Uploads(self.store, self.rank, self.world, attempt, self._tell)

    def _forget_lost_best(self, step: int) -> None:
        """Without the checkpoint of the best weights, the next validation decides anew."""
        assert self.store is not None
        best = self.state.stopping.best_step
        if best not in (0, step) and not self._share(self.store.is_complete(best)):
            self.state.stopping = Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold)

    def _load(self, step: int, *, weights_only: bool = False) -> str | None:
        """Load a checkpoint of any number of workers and any ZeRO stage; what is wrong with it, or None.

        Nothing is read before the hashes are compared.
        """
        assert self.store is not None
        with tempfile.TemporaryDirectory() as scratch:
            if not self._share(self.store.is_complete(step)):
                return "it is not there"
            folder = self.store.fetch(step, Path(scratch))
            # A folder that all of them see is compared together, a copy of one's own alone.
            mine = (self.rank, self.world) if self.store.local else (0, 1)
            told: list[str | None] = [None] * self.world
            dist.all_gather_object(told, self.store.verify(step, folder, *mine))
            if problem := next(filter(None, told), None):
                return problem
            load_engine(self.engine, sorted(folder.glob("state-*.safetensors")), moments=not weights_only)
            if not weights_only:
                self.state = State.of(json.loads((folder / "state.json").read_text(encoding="utf-8")))
                self.timeline = Timeline.read(folder)
        return None

    def _checkpoint(self) -> None:
        assert self.uploads is not None
        told: list[list[list[int]]] = [[]] * self.world
        dist.all_gather_object(told, self._learnt)
        for parts in zip(*told, strict=True):
            self.timeline.add(number for part in parts for number in part)
        self._learnt = []
        self.uploads.write(self.state.step, self.state.stopping.best_step, self._write)

    def _write(self, folder: Path) -> None:
        """This worker's files of a checkpoint."""
        save_engine(self.engine, folder / f"state-{self.rank:05d}.safetensors", self.rank, self.world)
        if self.rank == 0:
            (folder / "state.json").write_text(json.dumps(self.state.as_json()), encoding="utf-8")
            self.timeline.write(folder)

    def _arrived(self) -> UserError | None:
        """Wait until every worker has kept the last checkpoint; what stands in this one's way."""
        if self.uploads is None:
            return None
        problem = self.uploads.drain()
        dist.barrier()
        if self.rank == 0:
            self.uploads.settle()
        if problem is None:
            return None
        return UserError(
            f"The checkpoint of step {self.state.step} could not be kept: {problem}.",
            "Mend the storage, then run the same command: it goes on from the checkpoint before.",
        )

    def _sum(self, values: list[float]) -> list[float]:
        """Sums over all workers; every worker goes on with the same numbers."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def _share(self, value: T) -> T:
        """Rank 0's value, on every worker."""
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def _stop_asked(self) -> bool:
        if self.rank != 0 or self.mailbox is None or time.monotonic() - self._polled < STOP_POLL_S:
            return False
        import ray

        self._polled = time.monotonic()
        return bool(ray.get(self.mailbox.stop_asked.remote()))

    def _say(self, kind: str, **values: Any) -> None:
        if self.rank == 0:
            self._tell(kind, **values)

    def _tell(self, kind: str, **values: Any) -> None:
        if self.mailbox is not None:
            self.mailbox.put.remote({"kind": kind, "label": self.job.label, "time": time.time(), **values})
