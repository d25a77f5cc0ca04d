"""Train: the chosen base learns from the training side; the validation side decides what is kept."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import Stopped
from pipelines import stage
from pipelines.progress import Progress
from pipelines.recipe import Recipe, Train
from pipelines.stage import Outcome, Stage, require
from pipelines.stages import GATES, SUMMARIES, load_stage
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.data.spool import Spool
    from pipelines.data.versioned.table import Side
    from pipelines.models.load import BaseFiles
    from pipelines.training.job import Job
    from pipelines.training.stored_bins import StoredBins

TRAINING_VERSION = 1
"""Raise it when the loop learns something else from the same inputs."""


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The split, the base, the resolved train section, the seed, and the sweep when there is one."""
    from pipelines.fingerprint import fingerprint

    split = require(load_stage("split"), recipe, workspace)
    train, winner = resolve(recipe, workspace)

    # After the evidence: a base may have to be fetched first.
    from pipelines.models.load import base_fingerprint

    return {
        "split": split.produced["split"],
        "split_report": split.key,
        "base": base_fingerprint(recipe.base, workspace.settings),
        "train": fingerprint(train.learnt_from()),
        "seed": str(recipe.seed),
        "version": code_version(),
    } | ({"sweep": winner["report"]} if winner else {})


def code_version() -> str:
    """Changes when the same inputs would train another model: a report or a checkpoint of before says nothing then."""
    from pipelines.data.chat import ENCODING_VERSION
    from pipelines.training.stored_bins import BINS_VERSION

    return f"{TRAINING_VERSION}.{ENCODING_VERSION}.{BINS_VERSION}"


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
    if "wandb" in train.report_to:
        from pipelines.tracking.weights_and_biases import check_installed

        check_installed()
    bins = prepare_bins(recipe, train, base, workspace, progress)
    if bins.example:
        progress.say(f"an example, what is learnt between marks:\n{bins.example['marked_text']}")
    name = f"{recipe.name}-{stage_key(fingerprints)}"
    store = CheckpointStore(workspace.uri("runs", name))
    if fresh:
        store.clear()
    job = make_job(recipe, train, base, bins, workspace, name)
    outcome = run_tracked(recipe, train, job, workspace, progress, name, winner)
    judged = judge(recipe, train, base, bins, job, outcome, winner, workspace)
    store.clear()
    return judged


def stage_key(fingerprints: dict[str, str]) -> str:
    """The short key of the run: what it reads decides its name, so that a rerun is the same run."""
    from pipelines.fingerprint import short
    from pipelines.gates import report_key

    return short(report_key("train", fingerprints))


def prepare_bins(
    recipe: Recipe, train: Train, base: "BaseFiles", workspace: Workspace, progress: Progress
) -> "StoredBins":
    """The encoded split for this base and these input settings, made once."""
    from pipelines.data.versioned.ledger import record_bins
    from pipelines.data.versioned.sides_on_disk import sides_on_disk
    from pipelines.training.encoding import read_columns
    from pipelines.training.stored_bins import bins_key, store_bins
    from pipelines.training.verdicts import check_pairs, check_sides

    split = require(load_stage("split"), recipe, workspace)
    key = bins_key(split.produced["split"], base.fingerprint, train)

    def sides(folder: Path) -> "dict[Side, Spool]":
        found = sides_on_disk(split, ("train", "validation"), read_columns(train), folder, train.fold)
        if train.learns_from_pairs:
            for side, rows in found.items():
                check_pairs(train.objective, side, len(rows), rows.column("rejected").null_count)
        return found

    stored = store_bins(workspace, key, base.folder, sides, train, progress)
    check_sides(stored.train, stored.validation)
    record_bins(workspace, recipe.name, split, stored.address, train.fold)
    return stored


def validation_groups(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """Example that validates -> its group, or its cluster of near-duplicates, for those that share one."""
    from collections import Counter

    from pipelines.data.versioned.table import read_side

    table = read_side(require(load_stage("split"), recipe, workspace), "validation", recipe.train.fold)
    rows = zip(*(table[name].to_pylist() for name in ("id", "group", "cluster")), strict=True)
    groups = {example: group or cluster or example for example, group, cluster in rows}
    sizes = Counter(groups.values())
    return {example: group for example, group in groups.items() if sizes[group] > 1}


def make_job(
    recipe: Recipe, train: Train, base: "BaseFiles", bins: "StoredBins", workspace: Workspace, name: str
) -> "Job":
    """What the workers are told."""
    from pipelines.models.companions import template_hash
    from pipelines.models.load import load_tokenizer
    from pipelines.training.job import Job
    from pipelines.training.schedule import plan_steps

    return Job(
        train=train.model_dump(mode="json"),
        seed=recipe.seed,
        plan=plan_steps(train, bins.train.bins),
        base={
            "name": base.name,
            "revision": recipe.base.revision,
            "folder": str(base.folder),
            "fingerprint": base.fingerprint,
            "chat_template": template_hash(load_tokenizer(base.folder)),
        },
        bins=bins.address,
        checkpoints=workspace.uri("runs", name),
        model=("models", recipe.name, name.removeprefix(f"{recipe.name}-")),
        groups=validation_groups(recipe, workspace),
        price_per_hour=recipe.cluster.price_per_hour,
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
    """Train, with every step tracked; the outcome with its `run_id`."""
    from dataclasses import replace

    from pipelines.fingerprint import short
    from pipelines.submissions import own_submission
    from pipelines.tracking.live import LiveRun
    from pipelines.training.check import check_device
    from pipelines.training.trainer import check_resumable, find_place, fit

    settings = workspace.settings
    place = find_place(recipe.cluster, workspace)
    check_device(train, place.use_gpu)
    check_resumable(job)
    tags = {"sluice.recipe": recipe.name, "sluice.stage": "train", "sluice.key": name.removeprefix(f"{recipe.name}-")}
    if submission_id := own_submission():
        tags["sluice.submission"] = submission_id
    split = require(load_stage("split"), recipe, workspace).produced["split"]
    params = train.model_dump(mode="json") | {"base": job.base["name"], "seed": recipe.seed, "split": short(split)}
    params |= winner.get("origin", {})
    run = LiveRun(settings, name, tags, params, wandb="wandb" in train.report_to)

    def on_event(event: dict[str, Any]) -> None:
        run.log(tracked(event), int(event.get("step", 0)), event["time"])

    try:
        outcome = fit(replace(job, device=place.device), place, name, workspace, progress, on_event)
    except BaseException as error:
        run.end("KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED")
        raise
    run.end()
    return outcome | {"run_id": run.run_id}


def tracked(event: dict[str, Any]) -> dict[str, float]:
    """A training event as metrics."""
    from pipelines.training.job import PREFERENCE_FIGURES

    if event["kind"] == "step":
        names = (
            "loss",
            "learning_rate",
            "grad_norm",
            "tokens_per_second",
            "utilisation",
            "memory_bytes",
            "device_memory_bytes",
        )
        return {f"train/{name}": event[name] for name in (*names, *PREFERENCE_FIGURES) if name in event}
    if event["kind"] in ("baseline", "validation"):
        values = {"validation/loss": event["loss"]} | {
            f"validation/{name}": event[name] for name in PREFERENCE_FIGURES if name in event
        }
        if len(values) == 1:
            # A loss of preferences is no entropy: it has no perplexity.
            values["validation/perplexity"] = math.exp(min(event["loss"], 50.0))
        # Against the lowest loss before, with the interval of the paired difference.
        known = {f"validation/{name}": event.get(name) for name in ("difference", "low", "high")}
        return values | {name: value for name, value in known.items() if value is not None}
    if event["kind"] == "overfit":
        return {"validation/overfit_since": event["since_step"]}
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
    from pipelines.fingerprint import folder_fingerprint
    from pipelines.models.companions import GENERATION_CONFIG
    from pipelines.training import verdicts
    from pipelines.training.bins import BinFile, padding_share

    file = BinFile(workspace.fetch(bins.address) / "train.arrow")
    seq2seq = bins.train.seq2seq
    # The arithmetic that was computed in and the sequences that fitted: `auto` depends on the machine.
    resolved = train.model_copy(update={name: outcome[name] for name in ("dtype", "per_device_train_batch_size")})
    padding = padding_share(file, resolved, recipe.seed, outcome["workers"], seq2seq=seq2seq)
    kept = verdicts.kept_loss(outcome)
    model = workspace.fetch(outcome["model"])
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
        # Of every sequence, over the steps that the weights went through: apart by one where an epoch was not ended.
        "least_visits": outcome["least_visits"],
        "most_visits": outcome["most_visits"],
        "objective": train.objective,
        # Of preference pairs: reward margin and accuracy on the validation side.
        "baseline_preferences": outcome["baseline_figures"],
        "preferences": verdicts.kept_figures(outcome),
        "tokens_per_second": round(outcome["tokens"] / max(outcome["seconds"], 1e-9), 1),
        "supervised_tokens_per_second": round(outcome["supervised_tokens"] / max(outcome["seconds"], 1e-9), 1),
        "tokens": outcome["tokens"],
        "supervised_tokens": outcome["supervised_tokens"],
        "step_seconds": round(outcome["seconds"], 3),
        "padding_share": round(padding, 4),
        "per_device_train_batch_size": outcome["per_device_train_batch_size"],
        "batch_probe": outcome["batch_probe"],
        "utilisation": round(outcome["utilisation"], 4) if outcome["utilisation_of"] else None,
        "utilisation_of": outcome["utilisation_of"],
        **outcome["memory"],
        "workers": outcome["workers"],
        "hours": round(outcome["spent_seconds"] / 3600, 4),
        "cost": None if outcome["cost"] is None else round(outcome["cost"], 4),
        "ended_by": outcome["ended_by"],
        "overfit": outcome["overfit"],
        # A run that ends at once on a checkpoint of an earlier layout measured no examples.
        "against_base": outcome.get("against_base"),
        "examples_by_loss": outcome.get("examples_by_loss", {}),
        "examples": bins.train.kept,
        "sequences": bins.train.bins,
        "packed": train.packing and not seq2seq,
        "dropped_overlong": bins.train.dropped,
        "truncated": bins.train.truncated,
        "tokens_lost": bins.train.tokens_lost,
        "learning_rate": train.peak_learning_rate,
        "example": bins.example,
        "history": outcome["history"],
        "stopped_because": outcome["stopped_because"],
        "winner": winner,
        "resolved_train": resolved.model_dump(mode="json"),
    }
    return Outcome(
        gates=(
            verdicts.supervision_gate(bins.train),
            verdicts.truncation_gate(bins.train),
            verdicts.overfit_gate(outcome, kept),
            verdicts.converged_gate(outcome, kept),
        ),
        findings=verdicts.budget_findings(outcome, job.plan.steps)
        + verdicts.input_findings(bins.train)
        + verdicts.input_findings(bins.validation, "validation"),
        figures=figures,
        produced={
            "model": outcome["model"],
            "model_fingerprint": folder_fingerprint(model),
            "base": base.name,
            "base_fingerprint": base.fingerprint,
            "base_folder": str(base.folder),
            "base_revision": base.revision,
            "method": train.method,
            "chat_template": job.base["chat_template"],
            "generation_config": (model / GENERATION_CONFIG).read_text(encoding="utf-8"),
            "run_id": outcome["run_id"],
        },
    )


STAGE = Stage("train", SUMMARIES["train"], GATES["train"], reads, work)


def main() -> int:
    """`python -m pipelines.train recipe.yaml`."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import train

    sys.exit(train.main())
