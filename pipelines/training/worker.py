"""The training loop: what runs on each worker, from the first bin to the exported weights."""

import gc
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm

from cluster.errors import UserError
from pipelines.data.packing import shuffled
from pipelines.fingerprint import folder_fingerprint, short
from pipelines.models.companions import checked_tokenizer
from pipelines.models.load import base_here
from pipelines.models.precision import Arithmetic, arithmetic
from pipelines.recipe import Train
from pipelines.training import divergence
from pipelines.training.bins import BinFile, micro_batches, step_bins
from pipelines.training.budget import KINDS, Budget
from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.engine import build_model, export, prepare_process, start_engine, zero_stage
from pipelines.training.job import Job, State
from pipelines.training.losses import Batch, SupervisedLoss, unwrapped
from pipelines.training.meter import Meter
from pipelines.training.overfit import by_loss, overfit_at, paired_difference
from pipelines.training.probe import Found, probe, probe_key, recall, remember
from pipelines.training.readings import Pass, Read, Readings
from pipelines.training.schedule import learning_rate
from pipelines.training.stopping import Stopping
from pipelines.training.validation import Validation
from pipelines.workspace import Workspace

STOP_POLL_S = 2.0
EXAMPLES_SHOWN = 10
"""Validation examples with the highest loss that a report names, and as many with the lowest."""


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
        self._began = time.monotonic()
        self.job, self.rank, self.world, self.mailbox, self.report = job, rank, world, mailbox, report
        self.train, self.plan = Train.model_validate(job.train), job.plan
        self.device = torch.device(f"cuda:{torch.cuda.current_device()}") if job.device == "cuda" else "cpu"
        prepare_process(job.device, job.seed)
        self.train = self.train.model_copy(update={"dtype": agreed_arithmetic(self.train.dtype, job.device, world)})
        self.workspace = Workspace()
        problem: UserError | None = None
        try:
            folder = self.workspace.fetch(job.bins)
            self.bins = BinFile(folder / "train.arrow")
            self.validation = Validation(
                BinFile(folder / "validation.arrow"), job.groups, seed=job.seed, limit=job.validation_bins
            )
            self.base_folder = self._base_here()
            self.tokenizer = checked_tokenizer(self.base_folder, job.base.get("chat_template", ""))
            model = build_model(self.train, self.base_folder, job.seed)
        except UserError as error:
            problem = error
        refuse_together(problem, world)
        self.probed: Found | None = None
        if self.train.per_device_train_batch_size == "auto":
            key = probe_key(job.base["fingerprint"], self.train, self.bins, world, self.device)
            self.probed = self._recall_batch(key)
            if self.probed is None:
                self.probed = self._find_batch(key, model)
                # The probe has used it up; what it held goes before another is built.
                del model
                gc.collect()
                model = build_model(self.train, self.base_folder, job.seed)
            self.train = self.train.model_copy(update={"per_device_train_batch_size": self.probed.sequences})
            self._say("batch", **asdict(self.probed))
        self.meter = Meter(unwrapped(model.model), self.device, self.train.dtype, frozen=self.train.method == "lora")
        self.engine = start_engine(model, self.train, world)
        self.store = CheckpointStore(job.checkpoints) if job.checkpoints else None
        self.state = State(
            stopping=Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold),
            spike=divergence.Spike(self.train.divergence_factor, self.train.divergence_steps),
        )
        # A trial has its steps; cut by time it would be compared with others after fewer.
        self.budget = (
            Budget() if job.rungs else Budget(self.train.max_hours, self.train.max_cost, job.price_per_hour, world)
        )
        self.readings = Readings()
        self._spent_before, self._validation_s, self._polled = 0.0, 0.0, 0.0

    def _base_here(self) -> Path:
        """The base on this worker's machine, the very one that the driver saw."""
        base = self.job.base
        return base_here(base["folder"], base["name"], base["revision"], base["fingerprint"], self.workspace.settings)

    def _recall_batch(self, key: str) -> Found | None:
        """How many sequences fit into a pass, where that is known from before."""
        told: list[Any] = [recall(self.workspace, key) if self.rank == 0 else None]
        dist.broadcast_object_list(told, src=0)
        known: Found | None = told[0]
        return known

    def _find_batch(self, key: str, model: SupervisedLoss) -> Found:
        found = probe(model, self.train, self.bins, self.world, self.device, self.job.memory_bytes)
        if self.rank == 0:
            remember(self.workspace, key, found)
        return found

    def run(self) -> dict[str, Any]:
        """Resume or begin, train, export; the outcome."""
        self._resume()
        self._say("started", pid=os.getpid(), step=self.state.step, steps=self.plan.steps, values=self.job.values)
        if self.state.baseline_loss is None and not self.job.rungs:
            losses = self._validate()
            self.state.losses["base"] = losses.tolist()
            self.state.baseline_loss = self.validation.mean(losses)
            self._say("baseline", step=0, loss=self.state.baseline_loss)
        stopped = "the last step"
        while self.state.step < self.plan.steps:
            if self.state.ended_by:
                stopped = f"{self.budget.described(self.state.ended_by)} was spent"
                break
            if self.state.stopping.exhausted and not self.job.rungs:
                stopped = (
                    f"no improvement in {self.train.early_stopping_patience} validations "
                    f"(best at step {self.state.stopping.best_step})"
                )
                break
            asked = self._step()
            validates = self._validates(self.state.step) or bool(self.state.ended_by)
            if validates:
                self._validated()
            if self.store and (validates or asked):
                self._checkpoint()
            if asked:
                return self._outcome("stopped", "stop requested")
        return self._finish(stopped)

    def _finish(self, stopped: str) -> dict[str, Any]:
        """The best weights, exported and kept."""
        outcome = self._outcome("finished", stopped) | self._examples("last")
        if not self.store:
            return outcome
        best = self.state.stopping.best_step
        whole = self.rank == 0 and best not in (0, self.state.step) and self.store.verify(best) is None
        if self._agree(int(whole)):
            self._load(best, weights_only=True)
            outcome |= {"kept_step": best} | self._examples("best")
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch, "model")
            export(self.engine, self.train, self.base_folder, self.job.base, target, self.rank, self.tokenizer)
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
            "per_device_train_batch_size": self.train.per_device_train_batch_size,
            "batch_probe": asdict(self.probed) if self.probed else None,
            "cost": self.budget.cost(self.state.spent_seconds),
            "utilisation": self.state.busy_seconds / max(1e-9, self.state.seconds * self.world),
            "utilisation_of": self.meter.measure,
            "kept_step": self.state.step,
            "last_validation_loss": last.get("validation_loss"),
            "last_train_loss": last.get("train_loss"),
        } | {name: value for name, value in self.state.as_json().items() if name != "losses"}

    def _examples(self, kept: str) -> dict[str, Any]:
        """Validation's best and worst examples with the kept weights, and what was gained over the base."""
        base, losses = (self.state.losses.get(name) for name in ("base", kept))
        if losses is None:
            return {}
        before, after = None if base is None else np.asarray(base), np.asarray(losses)
        side = self.validation
        shown = by_loss(side.ids, side.tokens, after, before, EXAMPLES_SHOWN)
        gain = None if before is None else paired_difference(before, after, side.tokens, side.groups).as_json()
        return {"examples_by_loss": shown, "against_base": gain}

    def _validates(self, step: int) -> bool:
        return step in self.job.rungs if self.job.rungs else self.plan.validates(step)

    def _step(self) -> bool:
        """One optimiser step over the global batch; whether a stop was asked for."""
        state, train, readings = self.state, self.train, self.readings
        started = time.monotonic()
        if not readings.taught:
            self.meter.restart()
        numbers = self._numbers(state.step)
        total = sum(self.bins.taught[i] for i in numbers if i is not None)
        # Seeded by step and rank: dropout is the same after a resume.
        torch.manual_seed(self.job.seed * 1_000_003 + state.step * self.world + self.rank)
        rate = learning_rate(train, self.plan, state.step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        norm = None
        micros = micro_batches(numbers, self.rank, self.world, train.sequences_per_pass)
        for number, micro in enumerate(micros, start=1):
            batch = self._batch(self.bins, micro)
            loss = self.engine(batch.tokens, batch.positions, batch.targets, batch.ends)
            # Normalised by the supervised tokens of the whole step: DeepSpeed averages over the workers, hence
            # the factor, and must not divide by the accumulation as well.
            self.engine.backward(loss * (self.world / max(1, total)), scale_wrt_gas=False)
            norm = self._gradient_norm()
            self.engine.step()
            readings.add(
                Pass(state.step + 1, number, micro), loss, sum(self.bins.sizes[i] for i in micro if i is not None)
            )
        readings.end_step(self.engine.get_global_grad_norm() if norm is None else norm, total)
        # Whatever looks at the step's figures or keeps its weights comes after they were read.
        due = (state.step + 1) % train.logging_steps == 0 or self._validates(state.step + 1)
        asked = due and self._stop_asked()
        read = readings.read() if due else None
        state.step += 1
        readings.seconds += time.monotonic() - started
        return False if read is None else self._read(read, rate, asked)

    def _read(self, read: Read, rate: float, asked: bool) -> bool:
        """Take in the steps since the last reading, all workers together; whether a stop was asked for."""
        state, readings, count = self.state, self.readings, len(self.readings.taught)
        lost = read.lost is not None or not all(map(math.isfinite, read.norms))
        state.spent_seconds = self._spent_before + time.monotonic() - self._began
        # Ending takes a validation: it is part of the budget.
        ended = KINDS.index(self.budget.ended(state.spent_seconds + self._validation_s)) if self.rank == 0 else 0
        busy = self.meter.busy(readings.tokens, sum(readings.taught) // self.world)
        sums = self._sum([*read.losses, *map(float, (lost, asked, ended, readings.tokens)), busy])
        any_lost, stops, ended_by, tokens, busy = sums[count:]
        if any_lost:
            self._refuse_lost(read)
        seconds, taught = readings.seconds, readings.taught
        state.supervised_tokens += sum(taught)
        state.tokens += int(tokens)
        state.seconds += seconds
        state.since_loss += sum(sums[:count])
        state.since_tokens += sum(taught)
        state.busy_seconds += busy
        state.ended_by = KINDS[int(ended_by)]
        self.readings = Readings()
        self._say(
            "step",
            step=state.step,
            loss=sum(sums[:count]) / max(1, sum(taught)),
            learning_rate=rate,
            tokens_per_second=tokens / seconds,
            supervised_tokens_per_second=sum(taught) / seconds,
            **({"grad_norm": read.norms[-1]} if read.norms else {}),
            **({"utilisation": busy / seconds / self.world} if self.meter.measure else {}),
            **self.meter.memory(),
        )
        for step, summed, tokens_taught in zip(
            range(state.step - count + 1, state.step + 1), sums, taught, strict=False
        ):
            loss = summed / max(1, tokens_taught)
            state.spike = state.spike.after(step, loss)
            if state.spike.exhausted:
                raise divergence.lasting_spike(state.spike, step, loss, self._ids(self._numbers(state.spike.since - 1)))
        return stops > 0

    def _numbers(self, step: int) -> list[int | None]:
        epoch, within = divmod(step, self.plan.steps_per_epoch)
        order = shuffled(len(self.bins), self.job.seed, epoch)
        return step_bins(order, self.bins.sizes, within, self.train.global_batch_size)

    def _batch(self, side: BinFile, numbers: list[int | None]) -> Batch:
        return Batch.of([side.read(number) for number in numbers], self.device)

    def _gradient_norm(self) -> torch.Tensor | None:
        """Before clipping, where DeepSpeed keeps none: at stage 0, whose gradients are whole on every worker."""
        if zero_stage(self.train) or not self.engine.is_gradient_accumulation_boundary():
            return None
        return get_total_norm([p.grad for p in self.engine.parameters() if p.grad is not None])

    def _ids(self, numbers: list[int | None]) -> list[str]:
        return [example for i in numbers if i is not None for example in self.bins.read(i).ids]

    def _refuse_lost(self, read: Read) -> None:
        """Raise Diverged, the same on every worker, for the first pass or else the first step that is no number."""
        lost = read.lost
        mine = None if lost is None else (lost.step, lost.number, self.rank, self._ids(lost.bins))
        told: list[Any] = [None] * self.world
        dist.all_gather_object(told, mine)
        first = min((found for found in told if found), default=None)
        begin = self.state.step - len(self.readings.taught) + 1
        norms = [(begin + i, norm) for i, norm in enumerate(read.norms) if not math.isfinite(norm)]
        if first and not (norms and norms[0][0] < first[0]):
            step, number, rank, ids = first
            raise divergence.no_loss(step, f"micro-batch {number} of worker {rank}", ids)
        step, norm = norms[0]
        raise divergence.no_gradient(step, norm, self._ids(self._numbers(step - 1)))

    def _validated(self) -> None:
        state = self.state
        losses = self._validate()
        loss = self.validation.mean(losses)
        train_loss = state.since_loss / max(1, state.since_tokens)
        state.since_loss, state.since_tokens = 0.0, 0
        state.history.append({"step": state.step, "train_loss": train_loss, "validation_loss": loss})
        self._watch_overfit(losses, loss)
        state.stopping = state.stopping.after(state.step, loss)
        state.losses["last"] = losses.tolist()
        if state.stopping.best_step == state.step:
            state.losses["best"] = state.losses["last"]
        self._say("validation", **state.history[-1] | {"loss": loss})
        if self.report:
            self.report({"step": state.step, "validation_loss": loss, "train_loss": train_loss})

    def _watch_overfit(self, losses: np.ndarray, loss: float) -> None:
        """Compare with the lowest loss before, which may be the base's, example by example."""
        state, side = self.state, self.validation
        known = [("best", state.stopping.best_step, state.stopping.best_loss)]
        if state.baseline_loss is not None:
            known.append(("base", 0, state.baseline_loss))
        name, since, then = min(known, key=lambda entry: entry[2])
        if name not in state.losses:
            return
        rise = paired_difference(
            np.asarray(state.losses[name]), losses, side.tokens, side.groups, comparisons=len(state.history)
        )
        state.history[-1] |= {name: value for name, value in rise.as_json().items() if name != "groups"}
        before, state.overfit = state.overfit, overfit_at(state.history, since, rise, (then, loss))
        if state.overfit and not before:
            self._say("overfit", step=state.step, **state.overfit)

    def _validate(self) -> np.ndarray:
        """Summed loss of each validation example, all workers together."""
        started = time.monotonic()
        losses = self.validation.measure(self.engine, self.train.sequences_per_pass, self.rank, self.world, self.device)
        self._validation_s = time.monotonic() - started
        peaks = self.meter.memory()
        highest = torch.tensor(list(peaks.values()), dtype=torch.int64, device=self.device)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        self.state.memory = dict(zip(peaks, highest.tolist(), strict=True))
        return losses

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
            self.state.losses.pop("best", None)
            self.state.overfit = None
        self._spent_before = self.state.spent_seconds
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
            self.state.spent_seconds = self._spent_before + time.monotonic() - self._began
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
