"""Lineage: what a model came from, and whether all of it is still there."""

from pathlib import Path
from typing import Any

from pipelines.fingerprint import short
from pipelines.gates import Gate, Report, Verdict, decide
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace

LINEAGE_SCHEMA_VERSION = 1


def ancestors(recipe: Recipe, workspace: Workspace) -> dict[str, Report | None]:
    """Stage -> its report for exactly what it would read now (None: there is none), in order, before promotion."""
    from cluster.errors import GateClosed
    from pipelines.gates import report_key
    from pipelines.stages import STAGES, load_stage

    found: dict[str, Report | None] = {}
    for name in STAGES:
        if name == "promote" or (name == "sweep" and recipe.sweep is None):
            continue
        try:
            key = report_key(name, load_stage(name).reads(recipe, workspace))
        except GateClosed:
            # What it would read has not passed: then it has no report on it either.
            found[name] = None
        else:
            found[name] = workspace.find_report(name, key)
    return found


def lineage(recipe: Recipe, reports: dict[str, Report]) -> dict[str, Any]:
    """What a deployment remembers for ever, as plain JSON values."""
    split, train = reports["split"], reports["train"]
    waivers = {
        (waiver.report, waiver.gate): waiver.model_dump(mode="json") | {"stage": stage}
        for stage, report in reports.items()
        for waiver in report.waivers
    }
    return {
        "schema_version": LINEAGE_SCHEMA_VERSION,
        "data": {name: split.produced[name] for name in ("table", "version", "split")},
        # With the values that the winning trial put into it: what the model was really trained with.
        "recipe": recipe.model_dump(mode="json") | {"train": train.figures["resolved_train"]},
        "winner": train.figures["winner"],
        "reports": {
            stage: {
                "key": report.key,
                "verdict": str(report.verdict),
                "gates": {gate.gate: str(gate.verdict) for gate in report.gates},
                "created_at": report.created_at.isoformat(),
            }
            for stage, report in reports.items()
        },
        "waivers": list(waivers.values()),
        "train": dict(train.produced),
    }


def lineage_gate(reports: dict[str, Report | None], workspace: Workspace) -> Gate:
    """`registry.lineage`: every ancestor passed or was waived, and the model's files are those that were evaluated."""
    problems = [
        f"{stage} has no report" if report is None else f"{stage} is closed"
        for stage, report in reports.items()
        if report is None or report.verdict is Verdict.CLOSED
    ]
    train = reports.get("train")
    if train is not None and (problem := model_problem(workspace, train.produced)):
        problems.append(problem)
    if problems:
        return decide("registry.lineage", False, f"The way to this model is broken: {'; '.join(problems)}.")
    assert train is not None
    waived = sum(len(report.waivers) for report in reports.values() if report)
    return decide(
        "registry.lineage",
        True,
        f"{len(reports)} reports from {next(iter(reports))} to evaluate hold ({waived or 'no'} gates waived); "
        f"the model's files are {short(train.produced['model_fingerprint'])}, as trained.",
    )


def model_problem(workspace: Workspace, produced: dict[str, Any]) -> str:
    """What is wrong with the files of a train report's model: gone, changed, or nothing (empty)."""
    from pipelines.fingerprint import folder_fingerprint

    address = str(produced["model"])
    try:
        folder: Path = workspace.fetch(address)
        present = folder.is_dir() and any(folder.iterdir())
    except (OSError, ValueError) as error:
        return f"the model's files at {address} cannot be read ({str(error).splitlines()[0]})"
    if not present:
        return f"the model's files at {address} are gone"
    if folder_fingerprint(folder) != produced["model_fingerprint"]:
        return f"the model's files at {address} are not those that were trained"
    return ""
