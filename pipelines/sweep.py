"""Sweep: short trials over the recipe's search space; `sluice train` then trains the winner."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cluster.errors import StageFailed, Stopped, UserError
from pipelines import stage
from pipelines.gates import Finding
from pipelines.progress import Bar, Progress
from pipelines.recipe import Recipe, Sweep
from pipelines.stage import Outcome, Stage, require
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.search.trials import TrialResult, Trials


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The split, the base, the train section that trials start from, the sweep section and the seed."""
    from pipelines.fingerprint import fingerprint
    from pipelines.stages import load_stage

    sweep = asked(recipe)
    split = require(load_stage("split"), recipe, workspace)
    from pipelines.models.load import base_fingerprint
    from pipelines.train import code_version

    return {
        "split": split.produced["split"],
        "split_report": split.key,
        "base": base_fingerprint(recipe.base, workspace.settings),
        "train": fingerprint(recipe.train.learnt_from()),
        "sweep": fingerprint(sweep.model_dump(mode="json")),
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
    from pipelines.search.trials import VALIDATION_BINS, find_winner, run_trials
    from pipelines.stages import load_stage
    from pipelines.training.checkpoints import CheckpointStore

    sweep, shared = asked(recipe), share(recipe, workspace, progress)
    key = shared.name.rpartition("-")[2]
    # Trials are short and start over: a state that was left half-way would only be taken for another's.
    CheckpointStore(f"{shared.storage}/{shared.name}").clear()
    with progress.bar("sweep", sweep.num_samples * sweep.max_steps) as bar:
        watch = Watch(recipe, workspace, bar, progress, key)
        try:
            results = run_trials(shared, recipe.seed, workspace, watch)
        except BaseException as error:
            watch.abandon("KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED")
            raise
    watch.end(results)
    winner = find_winner(results)
    if winner is None:
        causes = sorted({result.stopped for result in results})
        raise StageFailed(
            f"All {len(results)} trials failed: {'; '.join(causes)}",
            "Mend the cause, or narrow sweep.space; rates that are too high make training diverge.",
        )
    split = require(load_stage("split"), recipe, workspace)
    compared_on = shared.job.bins, recipe.seed, VALIDATION_BINS
    record_choice(workspace, recipe.name, split, *compared_on, recipe.train.fold)
    shown = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in winner.values.items())  # fmt: skip
    progress.say(f"sweep: {winner.trial} wins with {shown}: validation loss {winner.validation_loss:.3f}.")
    return Outcome(
        gates=(),
        findings=failed_findings(results),
        figures={
            "trials": [asdict(result) for result in results],
            "winner": asdict(winner),
            "max_steps": sweep.max_steps,
            "run_id": watch.run_id,
        },
        produced={"winner": json.dumps({"trial": winner.trial, "values": winner.values}, sort_keys=True)},
    )


def share(recipe: Recipe, workspace: Workspace, progress: Progress) -> "Trials":
    """What all trials share: the encoded split, the base, the place."""
    from dataclasses import replace

    from pipelines.fingerprint import short
    from pipelines.gates import report_key
    from pipelines.models.load import find_base
    from pipelines.search.space import with_values
    from pipelines.search.trials import Trials
    from pipelines.train import make_job, prepare_bins
    from pipelines.training.check import check_device, check_recipe
    from pipelines.training.trainer import find_place

    sweep = asked(recipe)
    base = find_base(recipe.base, workspace.settings)
    check_recipe(recipe.train, recipe.cluster, base)
    for key, value in sweep.edges():
        check_recipe(with_values(recipe.train, {key: value}), recipe.cluster, base)
    bins = prepare_bins(recipe, recipe.train, base, workspace, progress)
    place = find_place(recipe.cluster, workspace)
    for train in (recipe.train, *(with_values(recipe.train, {key: value}) for key, value in sweep.edges())):
        check_device(train, place.use_gpu)
    name = f"{recipe.name}-sweep-{short(report_key('sweep', reads(recipe, workspace)))}"
    job = make_job(recipe, recipe.train, base, bins, workspace, name)
    return Trials(
        job=replace(job, device=place.device, checkpoints=""),
        sweep=sweep,
        # Trials are compared: each has all of its workers.
        place=replace(place, min_workers=None),
        name=name,
        storage=workspace.uri("sweeps"),
        max_concurrent=recipe.cluster.max_concurrent_trials,
    )


class Watch:
    """Shows the trials as they run and keeps each as an MLflow run."""

    def __init__(self, recipe: Recipe, workspace: Workspace, bar: Bar, progress: Progress, key: str) -> None:
        from pipelines.tracking import runs

        self._recipe, self._settings, self._bar, self._progress = recipe, workspace.settings, bar, progress
        self._key = key
        self._runs: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        params = asked(recipe).model_dump(mode="json") | {"base": recipe.base.base, "seed": recipe.seed}
        self.run_id = runs.start_run(self._settings, f"{recipe.name}-sweep-{key}", self._tags("sweep"), params)
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
        if kind == "started":
            values = event["values"]
            self._runs[trial] = runs.start_run(
                self._settings, f"{self._recipe.name}-{trial}", self._tags("trial") | {"sluice.trial": trial}, values
            )
            shown = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
            self._progress.say(f"{trial} ({len(self._runs)} of {asked(self._recipe).num_samples}): {shown}")
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

    def end(self, results: "list[TrialResult]") -> None:
        """Close the MLflow runs as the trials ended."""
        from pipelines.tracking import runs

        for number, result in enumerate(results, start=1):
            failed = result.stopped.startswith("failed")
            runs.end_run(self._settings, self._runs.get(result.trial, ""), "FAILED" if failed else "FINISHED")
            if result.validation_loss is not None:
                runs.log_metrics(self._settings, self.run_id, {"validation/loss": result.validation_loss}, number)
        runs.end_run(self._settings, self.run_id)

    def abandon(self, status: str) -> None:
        """Close the MLflow runs of a sweep that came to no end."""
        from pipelines.tracking import runs

        for run_id in (*self._runs.values(), self.run_id):
            runs.end_run(self._settings, run_id, status)


def failed_findings(results: "list[TrialResult]") -> tuple[Finding, ...]:
    """The trials that failed, with their causes."""
    failed = [result for result in results if result.stopped.startswith("failed")]
    if not failed:
        return ()
    return (
        Finding(
            code="sweep.failed",
            severity="warning",
            message=f"{len(failed)} of {len(results)} trials failed; the winner is chosen among the others.",
            count=len(failed),
            samples=tuple({"trial": r.trial, "values": r.values, "cause": r.stopped} for r in failed[:5]),
            remedy="Narrow sweep.space where the failures lie.",
        ),
    )


STAGE = Stage(
    name="sweep",
    summary="Try hyper-parameters in short trials; train takes the winner.",
    gates=(),
    reads=reads,
    work=work,
)


def main() -> int:
    """`python -m pipelines.sweep recipe.yaml`."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import sweep

    sys.exit(sweep.main())
