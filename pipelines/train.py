"""Train: the chosen base learns from the training side; the validation side decides what is kept."""

import math
import sys
from typing import TYPE_CHECKING, Any

from pipelines import stage
from pipelines.gates import Finding, Gate, Report, decide
from pipelines.progress import Progress
from pipelines.recipe import Recipe, Train
from pipelines.stage import Outcome, Stage, require
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.models.load import BaseFiles
    from pipelines.training.bins import SideFigures, StoredBins
    from pipelines.training.worker import Job

MAX_LOST_SHARE = 0.05
"""Of examples that are dropped or cut; more, and the model learns from another set than was audited."""


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The split, the base, the resolved train section, the seed, and the sweep when there is one."""
    from pipelines.fingerprint import fingerprint
    from pipelines.stages import load_stage

    split = require(load_stage("split"), recipe, workspace)
    train, winner = resolve(recipe, workspace)

    # After the evidence: a base may have to be fetched first.
    from pipelines.models.load import base_fingerprint

    return {
        "split": split.produced["split"],
        "split_report": split.key,
        "base": base_fingerprint(recipe.base, workspace.settings),
        "train": fingerprint(train.model_dump(mode="json")),
        "seed": str(recipe.seed),
    } | ({"sweep": winner["report"]} if winner else {})


def resolve(recipe: Recipe, workspace: Workspace) -> tuple[Train, dict[str, Any]]:
    """The train section with the winning trial's values in it, and where each came from ({} without a sweep)."""
    import json

    if recipe.sweep is None:
        return recipe.train, {}
    from pipelines.sweep import STAGE as SWEEP

    report = require(SWEEP, recipe, workspace)
    found = json.loads(report.produced["winner"])
    values = found["values"]
    train = Train.model_validate(recipe.train.model_dump() | values)
    origin = f"sweep {report.key[:12]}, trial {found['trial']}"
    winner = {"report": report.key, "trial": found["trial"], "values": values}
    return train, winner | {"origin": {f"train.{key}": origin for key in values}}


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Encode, train, keep the best weights, judge."""
    from pipelines.models.load import find_base
    from pipelines.training.check import check_recipe
    from pipelines.training.checkpoints import CheckpointStore

    fingerprints = reads(recipe, workspace)
    train, winner = resolve(recipe, workspace)
    base = find_base(recipe.base, workspace.settings)
    check_recipe(train, recipe.cluster, base)
    bins = prepare_bins(recipe, train, base, workspace, progress)
    if bins.example:
        progress.say(f"an example, what is learnt between marks:\n{bins.example['marked_text']}")
    name = f"{recipe.name}-{stage_key(fingerprints)}"
    store = CheckpointStore(workspace.uri("runs", name))
    if fresh:
        store.clear()
    job = make_job(recipe, train, base, bins, workspace, name)
    outcome = run_tracked(recipe, train, job, workspace, progress, name, winner)
    store.clear()
    return judge(recipe, train, base, bins, job, outcome, winner, workspace)


def stage_key(fingerprints: dict[str, str]) -> str:
    """The short key of the run: what it reads decides its name, so that a rerun is the same run."""
    from pipelines.fingerprint import short
    from pipelines.gates import report_key

    return short(report_key("train", fingerprints))


def prepare_bins(
    recipe: Recipe, train: Train, base: "BaseFiles", workspace: Workspace, progress: Progress
) -> "StoredBins":
    """The encoded split for this base and these input settings, made once."""
    from pipelines.data.table import read_side
    from pipelines.models.load import load_tokenizer
    from pipelines.stages import load_stage
    from pipelines.training.bins import bins_key, store_bins

    split = require(load_stage("split"), recipe, workspace)
    key = bins_key(split.produced["split"], base.fingerprint, train)

    def rows() -> dict[str, list[tuple[str, str]]]:
        sides: dict[str, list[tuple[str, str]]] = {}
        for side in ("train", "validation"):
            table = read_side(split, side)
            sides[side] = list(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
        return sides

    return store_bins(workspace, key, lambda: load_tokenizer(base.folder), rows, train, progress)


def make_job(
    recipe: Recipe, train: Train, base: "BaseFiles", bins: "StoredBins", workspace: Workspace, name: str
) -> "Job":
    """What the workers are told."""
    from pipelines.training.schedule import plan_steps
    from pipelines.training.worker import Job

    return Job(
        train=train.model_dump(mode="json"),
        seed=recipe.seed,
        plan=plan_steps(train, bins.train.bins),
        base={
            "name": base.name,
            "revision": recipe.base.revision,
            "folder": str(base.folder),
            "fingerprint": base.fingerprint,
        },
        bins=bins.address,
        checkpoints=workspace.uri("runs", name),
        model=("models", recipe.name, name.removeprefix(f"{recipe.name}-")),
    )


def run_tracked(
    recipe: Recipe,
    train: Train,
    job: "Job",
    workspace: Workspace,
    progress: Progress,
    name: str,
    winner: dict[str, Any],
) -> dict[str, Any]:
    """Train, with every step in MLflow; the outcome with its `run_id`."""
    from dataclasses import replace

    from pipelines.tracking import runs
    from pipelines.training.trainer import check_resumable, find_place, fit

    settings = workspace.settings
    place = find_place(recipe.cluster, workspace)
    check_resumable(job, place)
    tags = {"sluice.recipe": recipe.name, "sluice.stage": "train", "sluice.key": name.removeprefix(f"{recipe.name}-")}
    params = train.model_dump(mode="json") | {"base": job.base["name"], "seed": recipe.seed} | winner.get("origin", {})
    run_id = runs.start_run(settings, name, tags, params)

    def on_event(event: dict[str, Any]) -> None:
        runs.log_metrics(settings, run_id, tracked(event), int(event.get("step", 0)))

    try:
        outcome = fit(replace(job, device=place.device), place, name, workspace, progress, on_event)
    except BaseException as error:
        runs.end_run(settings, run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    runs.end_run(settings, run_id)
    return outcome | {"run_id": run_id}


def tracked(event: dict[str, Any]) -> dict[str, float]:
    """A training event as metrics."""
    if event["kind"] == "step":
        names = ("loss", "learning_rate", "grad_norm", "tokens_per_second")
        return {f"train/{name}": event[name] for name in names}
    if event["kind"] in ("baseline", "validation"):
        return {"validation/loss": event["loss"], "validation/perplexity": math.exp(min(event["loss"], 50.0))}
    return {}


def judge(
    recipe: Recipe,
    train: Train,
    base: "BaseFiles",
    bins: "StoredBins",
    job: "Job",
    outcome: dict[str, Any],
    winner: dict[str, Any],
    workspace: Workspace,
) -> Outcome:
    """The outcome as gates, findings, figures and addresses."""
    from pipelines.data.packing import shuffled
    from pipelines.fingerprint import folder_fingerprint
    from pipelines.training.bins import BinFile, padding_share

    file = BinFile(workspace.fetch(bins.address) / "train.arrow")
    order = shuffled(len(file), recipe.seed, 0)
    kept = kept_loss(outcome)
    figures = {
        "steps": outcome["step"],
        "planned_steps": job.plan.steps,
        "epochs": round(outcome["step"] / job.plan.steps_per_epoch, 3),
        "train_loss": outcome["last_train_loss"],
        "validation_loss": kept,
        "best_validation_loss": outcome["stopping"]["best_loss"],
        "last_validation_loss": outcome["last_validation_loss"],
        "baseline_validation_loss": outcome["baseline_loss"],
        "kept_step": outcome["kept_step"],
        "tokens_per_second": round(outcome["tokens"] / max(outcome["seconds"], 1e-9), 1),
        "supervised_tokens_per_second": round(outcome["supervised_tokens"] / max(outcome["seconds"], 1e-9), 1),
        "tokens": outcome["tokens"],
        "supervised_tokens": outcome["supervised_tokens"],
        "step_seconds": round(outcome["seconds"], 3),
        "padding_share": round(
            padding_share(
                file, order, train.global_batch_size, train.per_device_train_batch_size, recipe.cluster.num_workers
            ),
            4,
        ),
        "examples": bins.train.kept,
        "sequences": bins.train.bins,
        "dropped_overlong": bins.train.dropped,
        "truncated": bins.train.truncated,
        "tokens_lost": bins.train.tokens_lost,
        "learning_rate": train.peak_learning_rate,
        "example": bins.example,
        "history": outcome["history"],
        "stopped_because": outcome["stopped_because"],
        "winner": winner,
        "resolved_train": train.model_dump(mode="json"),
    }
    return Outcome(
        gates=(
            supervision_gate(bins.train),
            truncation_gate(bins.train),
            overfit_gate(outcome, kept),
            converged_gate(outcome, kept),
        ),
        findings=input_findings(bins.train),
        figures=figures,
        produced={
            "model": outcome["model"],
            "model_fingerprint": folder_fingerprint(workspace.fetch(outcome["model"])),
            "base": base.name,
            "base_fingerprint": base.fingerprint,
            "base_folder": str(base.folder),
            "base_revision": base.revision,
            "method": train.method,
            "run_id": outcome["run_id"],
        },
    )


def kept_loss(outcome: dict[str, Any]) -> float:
    """Validation loss of the weights that were kept."""
    losses = {entry["step"]: entry["validation_loss"] for entry in outcome["history"]}
    return float(losses.get(outcome["kept_step"], math.nan))


def supervision_gate(figures: "SideFigures") -> Gate:
    """Every example that was kept teaches something, and to stop as well."""
    unended = figures.unended - figures.truncated
    holds = figures.kept > 0 and figures.untaught == 0 and unended <= 0
    share = figures.supervised_tokens / max(1, figures.tokens)
    return decide(
        "train.supervision",
        holds,
        f"{figures.kept} examples teach {figures.supervised_tokens} of their {figures.tokens} tokens ({share:.0%}); "
        f"{figures.untaught} teach nothing, {max(0, unended)} do not teach where to stop.",
    )


def truncation_gate(figures: "SideFigures") -> Gate:
    """No more than a small share of the examples is lost to max_length."""
    lost = figures.overlong / max(1, figures.examples)
    return decide(
        "train.truncation",
        lost <= MAX_LOST_SHARE,
        f"{figures.dropped} examples dropped and {figures.truncated} cut of {figures.examples} ({lost:.1%}, at most "
        f"{MAX_LOST_SHARE:.0%}); {figures.tokens_lost} tokens lost.",
    )


def overfit_gate(outcome: dict[str, Any], kept: float) -> Gate:
    """What is kept is the best that validation saw, and it is more than learning by heart.

    Closed when a later, worse state was kept, or when the training loss fell below what the untrained base
    has on validation while the validation loss did not.
    """
    best, baseline = outcome["stopping"]["best_loss"], outcome["baseline_loss"]
    last, learnt = outcome["last_validation_loss"], outcome["last_train_loss"]
    by_heart = kept >= baseline and learnt < baseline
    return decide(
        "train.overfit",
        math.isfinite(kept) and kept <= best + 1e-9 and not by_heart,
        f"Kept step {outcome['kept_step']} of {outcome['step']}: validation loss {kept:.3f} (lowest {best:.3f}, last "
        f"{last:.3f}); training ended at {learnt:.3f}, a gap of {last - learnt:+.3f}.",
    )


def converged_gate(outcome: dict[str, Any], kept: float) -> Gate:
    """The kept weights predict validation better than the base did."""
    baseline = outcome["baseline_loss"]
    return decide(
        "train.converged",
        math.isfinite(kept) and kept < baseline,
        f"Validation loss {baseline:.3f} before training and {kept:.3f} kept ({kept - baseline:+.3f}; perplexity "
        f"{math.exp(min(baseline, 50)):.1f} to {math.exp(min(kept, 50)):.1f}).",
    )


def input_findings(figures: "SideFigures") -> tuple[Finding, ...]:
    """What of the training side was lost or changed on the way to tokens."""
    told = (
        ("dropped", "train.truncation.dropped", "are longer than train.max_length and were left out",
         "Raise train.max_length, or set train.on_overlong: truncate."),
        ("truncated", "train.truncation.cut", "were cut at train.max_length", "Raise train.max_length."),
        ("untaught", "train.supervision.nothing", "have no answer to learn and were left out", "Remove or mend them."),
        ("unended", "train.supervision.end", "do not teach where the answer ends", "Raise train.max_length, or use a "
         "base whose chat template closes the assistant's turn with a special token."),
        ("escaped", "train.supervision.special", "special tokens stood in the text and were made plain text",
         "Look whether these texts are meant to be there."),
    )  # fmt: skip
    return tuple(
        Finding(
            code=code,
            severity="info" if name == "escaped" else "warning",
            message=f"{count} {what}." if name == "escaped" else f"{count} of {figures.examples} examples {what}.",
            count=count,
            samples=tuple({"id": example} for example in figures.samples.get(name, ())),
            remedy=remedy,
        )
        for name, code, what, remedy in told
        if (count := getattr(figures, name))
    )


def trained(recipe: Recipe, workspace: Workspace) -> Report:
    """The passing train report of a recipe."""
    return require(STAGE, recipe, workspace)


STAGE = Stage(
    name="train",
    summary="Fine-tune the base on the training side, watched by the validation side.",
    gates=("train.supervision", "train.truncation", "train.overfit", "train.converged"),
    reads=reads,
    work=work,
)


def main() -> int:
    """`python -m pipelines.train recipe.yaml`."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import train

    sys.exit(train.main())
