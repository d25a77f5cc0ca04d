"""The training loop: what runs on each worker, from the first bin to the exported weights."""

import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from pipelines.training.job import Job, State
from pipelines.training.schedule import learning_rate
from pipelines.training.stopping import Stopping
from pipelines.workspace import Workspace

STOP_POLL_S = 2.0


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
    )


def run_loop(
    job: Job, *, rank: int, world: int, mailbox: Any = None, report: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Train as the job says inside an existing process group.

    What a person can mend comes back as {"status": "failed", ...}; Ray would restart on an exception.
    """
    try:
        return Loop(job, rank, world, mailbox, report).run()
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
        self, job: Job, rank: int, world: int, mailbox: Any, report: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.job, self.rank, self.world, self.mailbox, self.report = job, rank, world, mailbox, report
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
        self.inputs_of = model.inputs_of
        self.engine = start_engine(model, self.train, world)
        self.store = CheckpointStore(job.checkpoints) if job.checkpoints else None
        self.state = State(stopping=Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold))
        self._polled = 0.0

    def _base_here(self) -> Path:
        """The base on this worker's machine, the very one that the driver saw."""
        base = self.job.base
        return base_here(base["folder"], base["name"], base["revision"], base["fingerprint"], self.workspace.settings)

    def run(self) -> dict[str, Any]:
        """Resume or begin, train, export; the outcome."""
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
            if self.store and (validates or asked):
                self._checkpoint()
            if asked:
                return self._outcome("stopped", "stop requested")
        return self._finish(stopped)

    def _finish(self, stopped: str) -> dict[str, Any]:
        """The best weights, exported and kept."""
        outcome = self._outcome("finished", stopped)
        if not self.store:
            return outcome
        best = self.state.stopping.best_step
        whole = self.rank == 0 and best not in (0, self.state.step) and self.store.verify(best) is None
        if self._agree(int(whole)):
            self._load(best, weights_only=True)
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
        summed, nothing_lost, tokens, norm = 0.0, True, 0, None
        for micro in micro_batches(numbers, self.rank, self.world, train.per_device_train_batch_size):
            loss = self.engine(*self._inputs(self.bins, micro))
            # Normalised by the supervised tokens of the whole step: DeepSpeed averages over the workers, hence
            # the factor, and must not divide by the accumulation as well.
            self.engine.backward(loss * (self.world / max(1, total)), scale_wrt_gas=False)
            norm = self._gradient_norm()
            self.engine.step()
            summed += float(loss.detach())
            nothing_lost = nothing_lost and math.isfinite(summed)
            tokens += sum(self.bins.sizes[i] for i in micro if i is not None)
        norm = self.engine.get_global_grad_norm() if norm is None else norm
        norm = None if norm is None else float(norm)
        asked = self._stop_asked()
        sums = self._sum([summed if nothing_lost else 0.0, 0.0 if nothing_lost else 1.0, float(asked), float(tokens)])
        if sums[1] or not math.isfinite(norm or 0.0):
            self._diverged(numbers, norm)
        state.step += 1
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

    def _inputs(self, side: BinFile, numbers: list[int | None]) -> tuple[torch.Tensor, ...]:
        return self.inputs_of([side.read(number) for number in numbers], self.device)

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
            summed += float(self.engine(*self._inputs(self.validation, micro)))
        self.engine.train()
        total = sum(self.validation.taught[i] for i in order)
        return self._sum([summed])[0] / max(1, total)

    def _resume(self) -> None:
        if not self.store:
            return
        aside: dict[int, str] = {}
        newest = -1
        if self.rank == 0:
            found, aside = self.store.newest_whole()
            newest = -1 if found is None else found
        newest = self._agree(newest)
        for step, problem in aside.items():
            self._say("damaged", step=step, problem=problem)
        if newest < 0:
            return
        self._load(newest)
        best = self.state.stopping.best_step
        lost = self.rank == 0 and best not in (0, newest) and self.store.verify(best) is not None
        if self._agree(int(lost)):
            # What was best is lost with its checkpoint: the next validation decides anew.
            self.state.stopping = Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold)
        self._say("resumed", step=newest, steps=self.plan.steps)

    def _load(self, step: int, *, weights_only: bool = False) -> None:
        assert self.store is not None
        # At stage 3 DeepSpeed looks for weights alone under the tag that a file `latest` names, which none of our
        # checkpoints has: there the optimiser comes along.
        alone = weights_only and zero_stage(self.train) < 3
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.store.fetch(step, Path(scratch))
            path, client = self.engine.load_checkpoint(
                str(folder),
                tag="state",
                load_module_strict=self.train.method == "full",
                load_optimizer_states=not alone,
                load_lr_scheduler_states=False,
                load_module_only=alone,
            )
        if path is None:
            raise UserError(f"The checkpoint of step {step} cannot be loaded.", "Start over with --fresh.")
        if not weights_only:
            self.state = State.of(client["sluice"])

    def _checkpoint(self) -> None:
        assert self.store is not None
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "state").mkdir()
            self.engine.save_checkpoint(
                scratch,
                tag="state",
                client_state={"sluice": self.state.as_json()},
                save_latest=False,
                exclude_frozen_parameters=self.train.method == "lora",
            )
            self.store.save(self.state.step, Path(scratch), self.rank, self.world)
        dist.barrier()
        if self.rank == 0:
            # The best, the last, and the one before: should the last be damaged, little is lost.
            self.store.keep_only({*self.store.complete()[-2:], self.state.stopping.best_step})
            self._say("checkpoint", step=self.state.step)

    def _sum(self, values: list[float]) -> list[float]:
        """Sums over all workers; every worker goes on with the same numbers."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def _agree(self, value: int) -> int:
        """Rank 0's value, on every worker."""
        tensor = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(tensor, src=0)
        return int(tensor[0])

    def _stop_asked(self) -> bool:
        if self.rank != 0 or self.mailbox is None or time.monotonic() - self._polled < STOP_POLL_S:
            return False
        import ray

        self._polled = time.monotonic()
        return bool(ray.get(self.mailbox.stop_asked.remote()))

    def _say(self, kind: str, **values: Any) -> None:
        if self.rank == 0 and self.mailbox is not None:
            self.mailbox.put.remote({"kind": kind, "label": self.job.label, "time": time.time(), **values})
