"""The training loop: what runs on each worker, from the first bin to the exported weights."""

import gc
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm

from cluster.errors import UserError
from pipelines.data.packing import shuffled
from pipelines.fingerprint import fingerprint, folder_fingerprint, short
from pipelines.models.companions import checked_tokenizer
from pipelines.models.load import base_here, load_model
from pipelines.models.precision import Arithmetic, arithmetic
from pipelines.recipe import Train
from pipelines.training import divergence
from pipelines.training.bins import BinFile, micro_batches, step_bins
from pipelines.training.budget import KINDS, Budget
from pipelines.training.engine import accumulation, build_model, export, prepare_process, start_engine, zero_stage
from pipelines.training.job import Job, State
from pipelines.training.keeping import Keeping
from pipelines.training.losses import unwrapped
from pipelines.training.meter import Meter
from pipelines.training.objectives import Preferences, objective_of
from pipelines.training.offload import close_folder, open_folder
from pipelines.training.overfit import overfit_at, paired_difference
from pipelines.training.preemption import Preemption
from pipelines.training.probe import Found, found_batch
from pipelines.training.readings import Pass, Read, Readings
from pipelines.training.reference import reference_place, reference_scores
from pipelines.training.schedule import learning_rate
from pipelines.training.stopping import Stopping
from pipelines.training.together import gathered, highest, refuse_together, summed
from pipelines.training.validation import Validation
from pipelines.workspace import Workspace

STOP_POLL_S = 2.0


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
        with ExitStack() as closing:
            return Loop(job, rank, world, closing, mailbox, report, preemption).run()
    except UserError as error:
        return {"status": "failed", "message": error.message, "remedy": error.remedy}


def agreed_arithmetic(wanted: str, device: str) -> Arithmetic:
    """What every worker can do well: they all compute in the same."""
    return "bfloat16" if set(gathered(arithmetic(wanted, device))) == {"bfloat16"} else "float32"


class Loop:
    """One worker's part of a run."""

    def __init__(
        self,
        job: Job,
        rank: int,
        world: int,
        closing: ExitStack,
        mailbox: Any,
        report: Callable[[dict[str, Any]], None] | None,
        preemption: Callable[[], Any] | None = None,
        load: Callable[..., Any] = load_model,
    ) -> None:
        """`closing`: what to do at the end of the run, or where it does not begin; `load`: see `build_model`."""
        self._began = time.monotonic()
        self.job, self.rank, self.world, self.mailbox, self.report = job, rank, world, mailbox, report
        self.preemption = Preemption(preemption, rank)
        self.train, self.plan = Train.model_validate(job.train), job.plan
        self.device = torch.device(f"cuda:{torch.cuda.current_device()}") if job.device == "cuda" else "cpu"
        prepare_process(job.device, job.seed)
        self._say("joined", workers=world)
        self.train = self.train.model_copy(update={"dtype": agreed_arithmetic(self.train.dtype, job.device)})
        self.objective = objective_of(self.train, self.device)
        self.workspace = Workspace()
        problem: UserError | None = None
        try:
            folder = self.workspace.fetch(job.bins)
            self.bins = BinFile(folder / "train.arrow")
            validation = BinFile(folder / "validation.arrow")
            self.base_folder = self._base_here()
            self.tokenizer = checked_tokenizer(self.base_folder, job.base.get("chat_template", ""))
            run = short(fingerprint(job.label, job.train, job.seed, job.bins))
            self.disk = open_folder(self.train.deepspeed, run, rank)
            closing.callback(close_folder, self.disk)
            model = build_model(self.train, self.base_folder, job.seed, load)
        except UserError as error:
            problem = error
        refuse_together(problem)
        drawn_by = job.seed if job.validation_seed is None else job.validation_seed
        self.validation = Validation(validation, job.groups, self.objective, seed=drawn_by, limit=job.validation_bins)
        self.probed: Found | None = None
        if self.train.per_device_train_batch_size == "auto":
            self.probed = found_batch(
                model,
                self.train,
                self.objective,
                self.bins,
                self.workspace,
                base=job.base["fingerprint"],
                device=self.device,
                available=job.memory_bytes,
                disk=self.disk,
            )
            if not self.probed.remembered:
                # The probe has used it up; what it held goes before another is built.
                del model
                gc.collect()
                model = build_model(self.train, self.base_folder, job.seed, load)
            self.train = self.train.model_copy(update={"per_device_train_batch_size": self.probed.sequences})
            self._say("batch", **asdict(self.probed))
        self.meter = Meter(unwrapped(model.model), self.device, self.train.dtype, frozen=self.train.trains_adapters)
        self.engine = start_engine(model, self.train, world, self.disk)
        self.keeping = Keeping(job.checkpoints, self.engine, rank, world, self._tell) if job.checkpoints else None
        self.state = State(
            stopping=Stopping(self.train.early_stopping_patience, self.train.early_stopping_threshold),
            spike=divergence.Spike(self.train.divergence_factor, self.train.divergence_steps),
        )
        # A trial has its steps; cut by time it would be compared with others after fewer.
        self.budget = Budget() if job.rungs else Budget(self.train.max_hours, self.train.max_cost, job.price_per_hour)
        self.readings = Readings()
        self._clocked, self._validation_s, self._polled = self._began, 0.0, 0.0
        self.begun = 0
        """The step at which a clone began: its seconds are of the steps since."""
        self._kept = 0
        """The step of the last checkpoint that was written."""
        self._over = ""
        """Why the run ended before its last step."""

    def _base_here(self) -> Path:
        """The base on this worker's machine, the very one that the driver saw."""
        base = self.job.base
        return base_here(base["folder"], base["name"], base["revision"], base["fingerprint"], self.workspace.settings)

    def run(self) -> dict[str, Any]:
        """Resume or begin, train, export; the outcome."""
        try:
            self.begin()
            return self.advance(self.plan.steps) or self._finish(self._over or "the last step")
        finally:
            self.close()

    def close(self) -> None:
        """Wait for what is on its way to storage."""
        if self.keeping:
            self.keeping.close()

    @property
    def weights_here(self) -> int:
        """Weights that are trained, of each worker."""
        trained = (parameter for parameter in self.engine.module.parameters() if parameter.requires_grad)
        return sum(int(getattr(each, "ds_numel", each.numel())) for each in trained) // self.world

    def begin(self, weights: str = "", at: int = 0) -> None:
        """Go on from the newest checkpoint, or begin; the base is measured first, unless this is a trial.

        `weights`: address of another run's checkpoints; a run that has none of its own begins with the weights and the
        step of the newest of them that is no later than `at`, or of the newest (a clone).
        """
        self._refer()
        if not self._resume() and weights:
            assert self.keeping is not None
            self.begun = self.state.step = self.keeping.take_weights(weights, at)
        self._say("started", pid=os.getpid(), step=self.state.step, steps=self.plan.steps, values=self.job.values)
        if self.state.baseline_loss is None and not self.job.rungs:
            losses, loss, figures = self._validate()
            self.state.losses["base"] = losses.tolist()
            self.state.baseline_loss, self.state.baseline_figures = loss, figures
            self._say("baseline", step=0, loss=loss, **figures)
        elif weights and not self.state.history:
            self._validated()
            self._keep()

    def advance(self, until: int) -> dict[str, Any] | None:
        """Train up to a step; the outcome where a stop was asked for, None otherwise.

        Less far when a budget is spent or the validation loss no longer falls: the run is then over.
        """
        # What was done between two calls is not this run's time.
        self._clocked = time.monotonic()
        while self.state.step < until:
            if self.state.ended_by:
                self._over = f"{self.budget.described(self.state.ended_by)} was spent"
                break
            if self.state.stopping.exhausted and not self.job.rungs:
                self._over = (
                    f"no improvement in {self.train.early_stopping_patience} validations "
                    f"(best at step {self.state.stopping.best_step})"
                )
                break
            asked = self._step()
            validates = self._validates(self.state.step) or bool(self.state.ended_by)
            if validates:
                self._validated()
            leaving = self.preemption.noticed()
            if self.keeping and (validates or asked or leaving):
                self._keep()
                if leaving:
                    self._say("preempted", step=self.state.step, seconds=self.preemption.seconds_left())
                    # Before the machine goes; if it does not arrive, an older one is there to go on from.
                    self.keeping.arrive(self.state.step, needed=False)
                if asked:
                    self.keeping.arrive(self.state.step, needed=True)
            if asked:
                return self._outcome("stopped", "stop requested")
        if self.job.rungs and self.keeping and self._kept < self.state.step:
            # A trial whose turn is over may be let go of at any moment.
            self._keep()
        return None

    def _keep(self) -> None:
        assert self.keeping is not None
        self._clock()
        self.keeping.write(self.state)
        self._kept = self.state.step

    def _finish(self, stopped: str) -> dict[str, Any]:
        """The best weights, exported and kept."""
        outcome = self._outcome("finished", stopped) | self.validation.shown(self.state.losses, "last")
        if not self.keeping:
            return outcome
        self.keeping.arrive(self.state.step, needed=False)
        outcome["least_visits"], outcome["most_visits"] = self.keeping.timeline.visits(len(self.bins))
        best = self.state.stopping.best_step
        if best not in (0, self.state.step):
            if problem := self.keeping.load_weights(best):
                self._say("damaged", step=best, problem=problem)
            else:
                outcome |= {"kept_step": best} | self.validation.shown(self.state.losses, "best")
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
            "workers": self.world,
            "dtype": self.train.dtype,
            "per_device_train_batch_size": self.train.per_device_train_batch_size,
            "batch_probe": asdict(self.probed) if self.probed else None,
            "cost": self.budget.cost(self.state.spent_worker_seconds),
            "utilisation": self.state.busy_seconds / max(1e-9, self.state.seconds * self.world),
            "utilisation_of": self.meter.measure,
            "kept_step": self.state.step,
            "last_validation_loss": last.get("validation_loss"),
            "last_train_loss": last.get("train_loss"),
        } | {name: value for name, value in self.state.as_json().items() if name != "losses"}

    def _validates(self, step: int) -> bool:
        return step in self.job.rungs if self.job.rungs else self.plan.validates(step)

    def _clock(self) -> None:
        """Add what was spent since the last call."""
        now = time.monotonic()
        self.state.spent_seconds += now - self._clocked
        self.state.spent_worker_seconds += (now - self._clocked) * self.world
        self._clocked = now

    def _step(self) -> bool:
        """One optimiser step over the global batch; whether a stop was asked for."""
        state, train, readings = self.state, self.train, self.readings
        started = time.monotonic()
        if not readings.weights:
            self.meter.restart()
        numbers = self._numbers(state.step)
        weights = self.objective.weights(self.bins)
        weight = sum(weights[i] for i in numbers if i is not None)
        # Seeded by step and rank: dropout is the same after a resume.
        torch.manual_seed(self.job.seed * 1_000_003 + state.step * self.world + self.rank)
        rate = learning_rate(train, self.plan, state.step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        norm, learnt = None, list[int]()
        micros = micro_batches(numbers, self.rank, self.world, train.sequences_per_pass)
        for number, micro in enumerate(micros, start=1):
            sums = self.objective.sums(self.engine, self.bins, micro)
            # Normalised by the supervised tokens (or pairs) of the whole step: DeepSpeed averages over the workers,
            # hence the factor, and must not divide by the accumulation as well.
            self.engine.backward(sums[0] * (self.world / max(1, weight)), scale_wrt_gas=False)
            norm = self._gradient_norm()
            self.engine.step()
            present = [i for i in micro if i is not None]
            readings.add(Pass(state.step + 1, number, micro), sums, sum(self.bins.sizes[i] for i in present))
            learnt += present
        norm = self.engine.get_global_grad_norm() if norm is None else norm
        readings.end_step(norm, weight, sum(self.bins.taught[i] for i in numbers if i is not None))
        # Whatever looks at the step's figures or keeps its weights comes after they were read.
        due = (state.step + 1) % train.logging_steps == 0 or self._validates(state.step + 1)
        asked = due and self._stop_asked()
        read = readings.read() if due else None
        state.step += 1
        if self.keeping:
            self.keeping.learnt(learnt)
        readings.seconds += time.monotonic() - started
        return False if read is None else self._read(read, rate, asked)

    def _read(self, read: Read, rate: float, asked: bool) -> bool:
        """Take in the steps since the last reading, all workers together; whether a stop was asked for."""
        state, readings, count = self.state, self.readings, len(self.readings.weights)
        lost = read.lost is not None or not all(map(math.isfinite, read.norms))
        self._clock()
        # Ending takes a validation: it is part of the budget.
        left = self._validation_s
        ended_by = self.budget.ended(state.spent_seconds + left, state.spent_worker_seconds + left * self.world)
        ended = KINDS.index(ended_by) if self.rank == 0 else 0
        busy = self.meter.busy(readings.tokens, readings.taught // self.world)
        own = map(float, (lost, asked, self.preemption.due(), ended, readings.tokens))
        sums = summed([*own, busy, *read.figures, *read.losses], self.device)
        any_lost, stops, polls, spent, tokens, busy = sums[:6]
        figures, losses = sums[6 : 6 + len(read.figures)], sums[6 + len(read.figures) :]
        if any_lost:
            self._refuse_lost(read)
        if polls:
            # Every worker at the same step: Ray's answer to rank 0 is the answer to all.
            self.preemption.poll()
        seconds, weights, taught = readings.seconds, readings.weights, readings.taught
        weight = max(1, sum(weights))
        state.supervised_tokens += taught
        state.tokens += int(tokens)
        state.seconds += seconds
        state.since_loss += sum(losses)
        state.since_weight += sum(weights)
        state.busy_seconds += busy
        state.ended_by = KINDS[int(spent)]
        self.readings = Readings()
        self._say(
            "step",
            step=state.step,
            loss=sum(losses) / weight,
            learning_rate=rate,
            tokens_per_second=tokens / seconds,
            supervised_tokens_per_second=taught / seconds,
            **({"grad_norm": read.norms[-1]} if read.norms else {}),
            **({"utilisation": busy / seconds / self.world} if self.meter.measure else {}),
            **self.meter.memory(),
            **{name: value / weight for name, value in zip(self.objective.figures, figures, strict=True)},
        )
        for step, loss, of_step in zip(range(state.step - count + 1, state.step + 1), losses, weights, strict=True):
            mean = loss / max(1, of_step)
            state.spike = state.spike.after(step, mean)
            if state.spike.exhausted:
                raise divergence.lasting_spike(state.spike, step, mean, self._ids(self._numbers(state.spike.since - 1)))
        return stops > 0

    def _numbers(self, step: int) -> list[int | None]:
        epoch, within = divmod(step, self.plan.steps_per_epoch)
        order = shuffled(len(self.bins), self.job.seed, epoch)
        numbers = step_bins(order, self.bins.sizes, within, self.train.global_batch_size)
        places = accumulation(self.train, self.world) * self.train.sequences_per_pass * self.world
        return [*numbers, *[None] * (places - len(numbers))]

    def _refer(self) -> None:
        """Before anything is learnt: the base's scores of the pairs that will be seen, where the objective asks."""
        if not isinstance(self.objective, Preferences) or self.objective.references is None:
            return
        learnt = set(range(len(self.bins)))
        if self.plan.steps < self.plan.steps_per_epoch:
            learnt = {i for step in range(self.plan.steps) for i in self._numbers(step) if i is not None}
        sides = {"train": (self.bins, sorted(learnt)), "validation": (self.validation.side, self.validation.bins)}
        wanted = [sorted(numbers) for _, numbers in sides.values()]
        place = reference_place(self.job.bins, self.train.dtype, self.train.method, wanted)
        width = self.train.sequences_per_pass
        scores = reference_scores(self.engine, self.objective, sides, width, self.workspace, place)
        self.objective.references = {sides[name][0]: values for name, values in scores.items()}

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
        first = min((found for found in gathered(mine) if found), default=None)
        begin = self.state.step - len(self.readings.weights) + 1
        norms = [(begin + i, norm) for i, norm in enumerate(read.norms) if not math.isfinite(norm)]
        if first and not (norms and norms[0][0] < first[0]):
            step, number, rank, ids = first
            raise divergence.no_loss(step, f"micro-batch {number} of worker {rank}", ids)
        step, norm = norms[0]
        raise divergence.no_gradient(step, norm, self._ids(self._numbers(step - 1)))

    def _validated(self) -> None:
        state = self.state
        losses, loss, figures = self._validate()
        train_loss = state.since_loss / max(1, state.since_weight)
        state.since_loss, state.since_weight = 0.0, 0
        state.history.append({"step": state.step, "train_loss": train_loss, "validation_loss": loss} | figures)
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
            np.asarray(state.losses[name]), losses, side.weights, side.groups, comparisons=len(state.history)
        )
        state.history[-1] |= {name: value for name, value in rise.as_json().items() if name != "groups"}
        before, state.overfit = state.overfit, overfit_at(state.history, since, rise, (then, loss))
        if state.overfit and not before:
            self._say("overfit", step=state.step, **state.overfit)

    def _validate(self) -> tuple[np.ndarray, float, dict[str, float]]:
        """Summed loss of each validation example, all workers together; the mean; the means of what is beside it."""
        started = time.monotonic()
        measured = self.validation.measure(
            self.engine, self.train.sequences_per_pass, self.rank, self.world, self.device
        )
        self._validation_s = time.monotonic() - started
        self.state.memory = {name: highest(peak, self.device) for name, peak in self.meter.memory().items()}
        losses = measured[:, 0]
        return losses, self.validation.mean(losses), self.validation.figures(measured)

    def _resume(self) -> bool:
        state = self.keeping.resume() if self.keeping else None
        if state is None:
            return False
        self.state, self._kept = state, state.step
        self._say("resumed", step=state.step, steps=self.plan.steps)
        return True

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
