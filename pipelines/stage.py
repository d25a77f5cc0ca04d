"""A stage: a verb over a recipe that starts on evidence and leaves a report.

Each stage module (`audit.py`, `split.py`, ...) defines `STAGE` and `main`. Performing a stage
- computes the fingerprints of what it would read (`reads`), which asks the stages before it for
  passing reports on exactly that: see `require`;
- returns the stored report when there is one for the same fingerprints;
- else does the work and stores its report.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.errors import GateClosed, StageFailed
from pipelines.gates import Finding, Gate, Report, Verdict, report_key
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What a stage's work comes to."""

    gates: tuple[Gate, ...]
    findings: tuple[Finding, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    produced: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    """Fingerprints of what the work itself found, by the names of `reads`: without them nobody would notice
    when the data changed between the two."""


@dataclass(frozen=True)
class Stage:
    """A verb, the gates that it decides, what it reads and how it works."""

    name: str
    summary: str
    """One line for `--help`."""
    gates: tuple[str, ...]
    """The gates that its report must hold, all of them."""
    reads: Callable[[Recipe, Workspace], dict[str, str]]
    """Name -> fingerprint of everything that the work depends on; calls `require` for what must have passed."""
    work: Callable[[Recipe, Workspace, Progress, bool], Outcome]
    """The work itself; the last argument is `fresh`: start over, resume nothing."""

    def perform(
        self, recipe: Recipe, workspace: Workspace, progress: Progress | None = None, *, fresh: bool = False
    ) -> Report:
        """The stored report for the same inputs, or a new one. Raises GateClosed when evidence is missing."""
        progress = progress or Progress(quiet=True)
        workspace.check_storage()
        fingerprints = self.reads(recipe, workspace)
        key = report_key(self.name, fingerprints)
        own = workspace.reports(stage=self.name, key=key, recipe_name=recipe.name, limit=1)
        found = own[0] if own else workspace.find_report(self.name, key)
        if found and not fresh:
            progress.say(
                f"{self.name}: nothing changed since {found.created_at:%Y-%m-%d %H:%M} UTC; the report stands."
            )
            if found.recipe_name != recipe.name:
                # Another recipe read the same: its report counts for this one too, under this one's name.
                found = workspace.copy_report(found, recipe.name, recipe.model_dump(mode="json"))
            return found
        started = time.monotonic()
        outcome = self.work(recipe, workspace, progress, fresh)
        check_unmoved(self.name, recipe, fingerprints, outcome.read)
        decided = tuple(gate.gate for gate in outcome.gates)
        assert sorted(decided) == sorted(self.gates), f"{self.name} decided {decided}, not {self.gates}"
        report = Report(
            stage=self.name,
            recipe_name=recipe.name,
            gates=outcome.gates,
            findings=outcome.findings,
            figures=outcome.figures,
            fingerprints=fingerprints,
            produced=outcome.produced,
            recipe=recipe.model_dump(mode="json"),
            seconds=round(time.monotonic() - started, 3),
            created_at=datetime.now(UTC),
        )
        workspace.save_report(report)
        return report.with_waivers(workspace.waivers([report.key]))


def check_unmoved(stage: str, recipe: Recipe, before: dict[str, str], after: dict[str, str]) -> None:
    """Raise StageFailed when something of `after` is not what it was `before` the work of `stage`."""
    moved = [name for name in after if before[name] != after[name]]
    if moved:
        raise StageFailed(
            f"{recipe.name}: the {' and the '.join(moved)} changed while {stage} was reading, so it leaves no report.",
            f"Run `sluice {stage} RECIPE` again when nothing writes to the data.",
        )


def require(stage: Stage, recipe: Recipe, workspace: Workspace) -> Report:
    """The passing (or waived) report of `stage` for exactly what it would read now.

    Raises GateClosed that names the missing evidence and the command to run.
    """
    fingerprints = stage.reads(recipe, workspace)
    report = workspace.find_report(stage.name, report_key(stage.name, fingerprints))
    if report is None:
        earlier = workspace.reports(stage=stage.name, recipe_name=recipe.name, limit=1)
        if earlier:
            changed = sorted(k for k, v in fingerprints.items() if earlier[0].fingerprints.get(k) != v)
            reason = f"the last {stage.name} report is on other inputs ({', '.join(changed) or 'removed ones'} changed)"
        else:
            reason = f"there is no {stage.name} report"
        raise GateClosed(
            f"{recipe.name}: {reason}, so {', '.join(stage.gates) or stage.name} stays closed.",
            f"Run `sluice {stage.name} RECIPE` first.",
        )
    if report.verdict is Verdict.CLOSED:
        closed = " ".join(f"{gate.gate} is closed: {gate.evidence}" for gate in report.closed_gates)
        raise GateClosed(
            f"{recipe.name}: {closed}",
            f"Mend it and rerun `sluice {stage.name} RECIPE`, or put a name to it: "
            f'`sluice waive RECIPE {report.closed_gates[0].gate} --because "..." --by NAME`.',
        )
    return report


def main(stage: Stage, arguments: list[str] | None = None) -> int:
    """`python -m pipelines.STAGE recipe.yaml [key=value ...] [--json] [--fresh] [--dry-run]`; the exit code."""
    from pipelines.commands import run_stage

    return run_stage(stage, sys.argv[1:] if arguments is None else arguments)
