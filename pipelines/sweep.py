"""Sweep: short trials over the recipe's search space; `sluice train` then trains the winner."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cluster.errors import StageFailed, Stopped, UserError
from pipelines import stage
from pipelines.gates import Finding
from pipelines.progress import Bar, Progress
from pipelines.recipe import Recipe, Sweep, edges
from pipelines.stage import Outcome, Stage, require
from pipelines.stages import GATES, SUMMARIES, load_stage
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.search.history import History, Standing, Trial
    from pipelines.search.trials import Trials
    from pipelines.search.winner import Winner
    from pipelines.training.trainer import Place


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The split, the base, the train section that trials start from, the sweep section and the seed."""
    from pipelines.fingerprint import fingerprint

    sweep = asked(recipe)
    split = require(load_stage("split"), recipe, workspace)
    from pipelines.models.load import base_fingerprint
    from pipelines.train import code_version

    return {
        "split": split.produced["split"],
        "split_report": split.key,
        "base": base_fingerprint(recipe.base, workspace.settings),
        "train": fingerprint(recipe.train.learnt_from()),
        "sweep": fingerprint(sweep.decides()),
        "seed": str(recipe.seed),
        "version": code_version(),
    }


def asked(recipe: Recipe) -> Sweep:
    """The sweep section. Raises UserError when the recipe has none."""
    if recipe.sweep is None:
        raise UserError(f"{recipe.name}: the recipe has no sweep section.", "Add one, or run `sluice train` at once.")
    return recipe.sweep


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Run the trials and name the winner."""
    from pipelines.data.versioned.ledger import record_choice
    from pipelines.search.control import Control
    from pipelines.search.trials import VALIDATION_BINS
    from pipelines.search.winner import choose
    from pipelines.training.checkpoints import CheckpointStore

    sweep = asked(recipe)
    history = history_of(recipe, workspace, fresh)
    shared = share(recipe, workspace, progress, history.sweep)
    with progress.bar("sweep", sweep.num_samples * sweep.max_steps) as bar:
        watch = Watch(recipe, workspace, bar, progress, history.sweep)
        control = Control(shared, history, workspace, progress, watch)
        try:
            standing = control.run(watch.run_id)
        except BaseException as error:
            watch.abandon("KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED")
            raise
    watch.end(standing)
    winner = choose(standing)
    if winner is None:
        causes = sorted({trial.because for trial in standing.trials.values()})
        raise StageFailed(
            f"All {len(standing.trials)} trials failed: {'; '.join(causes)}",
            "Mend the cause, or narrow sweep.space; rates that are too high make training diverge.",
        )
    split = require(load_stage("split"), recipe, workspace)
    compared_on = shared.job.bins, recipe.seed, VALIDATION_BINS
    record_choice(workspace, recipe.name, split, *compared_on, recipe.train.fold)
    gained = against_default(standing, winner, shared, workspace)
    progress.say(f"sweep: {told(winner, gained)}")
    for trial in standing.trials:
        # The winner is trained from the base on: what trials learnt has served.
        CheckpointStore(f"{shared.checkpoints}/{trial}").clear()
    return Outcome(
        gates=(),
        findings=failed_findings(standing),
        figures={
            "sweep": history.sweep,
            "trials": [shown(trial) for trial in standing.trials.values()],
            "winner": asdict(winner),
            "against_default": gained,
            "ended_because": standing.closed,
            "max_steps": sweep.max_steps,
            "run_id": watch.run_id,
        },
        produced={"winner": json.dumps({"trial": winner.trial, "values": winner.values}, sort_keys=True)},
    )


def history_of(recipe: Recipe, workspace: Workspace, fresh: bool) -> "History":
    """The history to go on with: that of a sweep over the same inputs which came to no end, else a new one."""
    from pipelines.fingerprint import short
    from pipelines.gates import report_key
    from pipelines.search.history import History, sweeps
    from pipelines.search.winner import choose

    name = f"{recipe.name}-sweep-{short(report_key('sweep', reads(recipe, workspace)))}"
    begun = [
        entry for entry in sweeps(workspace, recipe.name) if entry.sweep == name or entry.sweep.startswith(f"{name}-")
    ]
    if begun and not fresh:
        newest = History(workspace, begun[0].sweep, recipe.name)
        standing = newest.standing()
        # One that has ended with a winner lacks its report alone.
        if not standing.closed or choose(standing):
            return newest
    return History(workspace, f"{name}-{len(begun) + 1}" if begun else name, recipe.name)


def share(recipe: Recipe, workspace: Workspace, progress: Progress, name: str) -> "Trials":
    """What all trials share: the encoded split, the base, the place."""
    from dataclasses import replace

    from pipelines.models.load import find_base
    from pipelines.search.prior import winners_before
    from pipelines.search.space import space_of, with_values
    from pipelines.search.trials import Trials
    from pipelines.train import make_job, prepare_bins
    from pipelines.training.check import check_device, check_recipe
    from pipelines.training.trainer import find_place

    sweep = asked(recipe)
    base = find_base(recipe.base, workspace.settings)
    variants = [with_values(recipe.train, values) for values in edges(space_of(sweep, recipe.train))]
    for train in (recipe.train, *variants):
        check_recipe(train, recipe.cluster, base)
    bins = prepare_bins(recipe, recipe.train, base, workspace, progress)
    place = find_place(recipe.cluster, workspace)
    for train in (recipe.train, *variants):
        check_device(train, place.use_gpu)
    job = make_job(recipe, recipe.train, base, bins, workspace, name)
    return Trials(
        job=replace(job, device=place.device, checkpoints=""),
        bins=bins.train.bins,
        sweep=sweep,
        train=recipe.train,
        # Trials are compared: each has all of its workers.
        place=replace(place, min_workers=None),
        seed=recipe.seed,
        checkpoints=workspace.uri("sweeps", name),
        concurrent=recipe.cluster.max_concurrent_trials or groups_there(place),
        prior=tuple(winners_before(workspace, base.fingerprint, recipe.train.objective, sweep.prior)),
    )


def groups_there(place: "Place") -> int:
    """How many trials the cluster as it is has room for: by GPUs, or by machines, whose cores a worker uses all."""
    import ray

    from pipelines.search.turns import machines_there

    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    there = int(gpus) if place.use_gpu else machines_there()
    return max(1, there // place.num_workers)


def against_default(
    standing: "Standing", winner: "Winner", shared: "Trials", workspace: Workspace
) -> dict[str, Any] | None:
    """By how much the winner's loss is below that of the recipe's own values after the same steps, with its interval.

    Paired by validation example, at the furthest step that both reached; None without a trial of the recipe's own.
    """
    from pipelines.search.trials import VALIDATION_BINS
    from pipelines.training.bins import BinFile
    from pipelines.training.objectives import objective_of
    from pipelines.training.overfit import paired_difference
    from pipelines.training.validation import Validation

    default = next((trial for trial in standing.trials.values() if trial.origin == "default"), None)
    if default is None:
        return None
    best = standing.trials[winner.trial]
    mine = {chunk.step: chunk for chunk in best.chunks if chunk.losses}
    pairs = [(chunk, mine[chunk.step]) for chunk in default.chunks if chunk.losses and chunk.step in mine]
    if not pairs:
        return None
    import numpy as np

    then, now = pairs[-1]
    side = BinFile(workspace.fetch(shared.job.bins) / "validation.arrow")
    objective = objective_of(shared.train, "cpu")
    drawn = Validation(side, shared.job.groups, objective, seed=shared.seed, limit=VALIDATION_BINS)
    difference = paired_difference(np.asarray(then.losses), np.asarray(now.losses), drawn.weights, drawn.groups)
    return {"step": now.step, "default": then.loss, "winner": now.loss, **difference.as_json()}


def told(winner: "Winner", gained: dict[str, Any] | None) -> str:
    """The winner in a sentence or two."""
    values = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                       for key, value in winner.values.items()) or "the recipe's own values"  # fmt: skip
    text = f"{winner.trial} wins with {values}: validation loss {winner.mean:.3f} at step {winner.step}"
    if winner.low is not None and winner.high is not None:
        text += f" over {len(winner.losses)} seeds [{winner.low:.3f}, {winner.high:.3f}]"
    if gained and winner.values:
        text += (
            f"; {gained['difference']:+.3f} [{gained['low']:+.3f}, {gained['high']:+.3f}] "
            f"against the recipe's own values at step {gained['step']}"
        )
    return text + "."


def shown(trial: "Trial") -> dict[str, Any]:
    """A trial in the report."""
    return {
        "trial": trial.trial,
        "values": trial.values,
        "origin": trial.origin,
        "parent": trial.parent,
        "seed": trial.seed,
        "validation_loss": trial.loss,
        "curve": [[chunk.step, chunk.loss] for chunk in trial.chunks],
        "steps": trial.step,
        "state": trial.state,
        "stopped": f"failed: {trial.because}" if trial.state == "failed" else trial.because,
        "seconds": round(trial.seconds, 1),
    }


class Watch:
    """Shows the trials as they run and keeps each as an MLflow run below the sweep's own."""

    def __init__(self, recipe: Recipe, workspace: Workspace, bar: Bar, progress: Progress, name: str) -> None:
        from pipelines.tracking import runs

        self._recipe, self._settings, self._bar, self._progress = recipe, workspace.settings, bar, progress
        self._key = name.partition("-sweep-")[2]
        self._runs: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        params = asked(recipe).model_dump(mode="json") | {"base": recipe.base.base, "seed": recipe.seed}
        self.run_id = runs.start_run(self._settings, name, self._tags("sweep"), params)
        """MLflow run of the sweep as a whole."""

    def _tags(self, kind: str) -> dict[str, str]:
        from pipelines.submissions import own_submission

        job = {"sluice.submission": own_submission()} if own_submission() else {}
        return {"sluice.recipe": self._recipe.name, "sluice.stage": kind, "sluice.key": self._key} | job

    def __call__(self, event: dict[str, Any]) -> None:
        """Show and keep an event of a trial."""
        from pipelines.tracking import runs
        from pipelines.train import tracked

        trial, kind = event["label"], event["kind"]
        if kind == "started" and trial not in self._runs:
            values = event["values"]
            tags = self._tags("trial") | {"sluice.trial": trial, "mlflow.parentRunId": self.run_id}
            self._runs[trial] = runs.start_run(self._settings, f"{self._recipe.name}-{trial}", tags, values)
            shown = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
            self._progress.say(f"{trial}: {shown or 'the recipe as it is'}")
        runs.log_metrics(
            self._settings, self._runs.get(trial, ""), tracked(event), int(event.get("step", 0)), event["time"]
        )
        if kind == "step":
            self._steps[trial] = event["step"]
            note = f"{trial} loss {event['loss']:.3f}  {event['tokens_per_second']:.0f} tokens/s"
            self._bar.update(sum(self._steps.values()), note)
        elif kind == "validation":
            from pipelines.training.trainer import told_validation

            self._progress.say(f"{trial}, step {event['step']}: {told_validation(event)}")
        elif kind == "ended" and trial in self._runs:
            runs.end_run(self._settings, self._runs.pop(trial), "FAILED" if event["failed"] else "FINISHED")

    def end(self, standing: "Standing") -> None:
        """Note each trial's loss in the sweep's own run and close it."""
        from pipelines.tracking import runs

        for number, trial in enumerate(standing.trials.values(), start=1):
            if trial.loss is not None:
                runs.log_metrics(self._settings, self.run_id, {"validation/loss": trial.loss}, number)
        # Of a driver before this one: a trial that was judged without another turn was not taken up again.
        runs.end_children(self._settings, self.run_id)
        runs.end_run(self._settings, self.run_id)

    def abandon(self, status: str) -> None:
        """Close the MLflow runs of a sweep that came to no end."""
        from pipelines.tracking import runs

        for run_id in (*self._runs.values(), self.run_id):
            runs.end_run(self._settings, run_id, status)


def failed_findings(standing: "Standing") -> tuple[Finding, ...]:
    """The trials that failed, with their causes."""
    failed = [trial for trial in standing.trials.values() if trial.state == "failed"]
    if not failed:
        return ()
    return (
        Finding(
            code="sweep.failed",
            severity="warning",
            message=f"{len(failed)} of {len(standing.trials)} trials failed; the winner is chosen among the others.",
            count=len(failed),
            samples=tuple({"trial": t.trial, "values": t.values, "cause": t.because} for t in failed[:5]),
            remedy="Narrow sweep.space where the failures lie.",
        ),
    )


STAGE = Stage("sweep", SUMMARIES["sweep"], GATES["sweep"], reads, work)


def main() -> int:
    """`python -m pipelines.sweep recipe.yaml`."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import sweep

    sys.exit(sweep.main())
