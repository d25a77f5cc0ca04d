"""One look at an experiment: what the database has summed up, and what follows from it."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pipelines.recipe_experiment import Experiment
from pipelines.records import ExperimentRow, now
from pipelines.workspace import Workspace
from serve.experimentation.adjustment import adjust
from serve.experimentation.arms import Arm, is_enough
from serve.experimentation.design import design_of
from serve.experimentation.evidence import counted
from serve.experimentation.safe_test import Blocks, blocks_of
from serve.experimentation.verdict import Reading, Verdict, decide

ENDS = ("harm", "worse", "non_inferior", "no_verdict")
"""Outcomes at which the watcher ends an experiment whatever the recipe says: the control serves everyone."""

GROWTH = 1.02
"""A look is kept when there are so many times the units of the one before it, so that their number stays small."""


@dataclass(frozen=True)
class Look:
    """What there is to see of an experiment."""

    at: datetime
    verdict: Verdict
    exposures: dict[str, int]
    """Arm -> units."""
    sums: dict[str, dict[str, Arm]]
    """Metric -> arm -> sums."""
    set_aside: dict[str, int]
    """Metric -> events since the start of units that were in no arm when they happened."""
    blocks: Blocks | None
    """Of the safe test, where few units are planned."""
    late: int | None
    """Its values that were known too late to count."""
    explained: float | None
    """Share of the primary metric's variance that is taken off, as the days before the start explain it; None where
    the recipe names no such days, or too little is in."""

    @property
    def counted(self) -> dict[str, int]:
        """Arm -> units that the verdict is about: of few planned ones not all that are in."""
        primary = self.verdict.primary.metric.name
        if self.blocks is None:
            return self.exposures
        return {arm: int(one.n) for arm, one in self.sums[primary].items()}


@dataclass(frozen=True)
class Step:
    """What follows from a look."""

    action: Literal["go_on", "cover", "end"]
    champion: str | None = None
    """Of an end: the arm that serves everyone from then on."""
    coverage: float | None = None


def look(workspace: Workspace, row: ExperimentRow, at: datetime | None = None) -> Look:
    """The experiment as it stands."""
    from serve.experimentation import sums
    from serve.experimentation.lifecycle import section_of

    at, section = at or now(), section_of(row)
    measures = (section.primary, *section.guardrails)
    blocks = explained = late = None
    with workspace.session() as session:
        met = sums.exposures(session, row)
        found = {measure.metric: sums.figures(session, row, measure) for measure in measures}
        aside = {measure.metric: sums.set_aside(session, row, measure) for measure in measures}
        decisive = dict(found)
        if section.settle_hours is not None:
            settled = sums.settled(session, row, section.primary, hours=section.settle_hours, at=at, most=row.planned)
            blocks = blocks_of((arm == section.treated, success) for arm, success in settled.units)
            late = settled.late
            found[section.primary.metric] = {section.control: blocks.control, section.treated: blocks.treated}
        of_primary, nobody = found[section.primary.metric], Arm(0, 0.0, 0.0)
        control, treated = of_primary.get(section.control, nobody), of_primary.get(section.treated, nobody)
        # An arm whose figures never varied says nothing, whatever its covariates do.
        if section.before_days is not None and is_enough(control, treated, "mean"):
            paired = sums.beside_before(session, row, section.primary, section.before_days)
            adjusted = adjust(paired[section.control], paired[section.treated])
            explained = float(adjusted.reduction)
            decisive[section.primary.metric] = {section.control: adjusted.control, section.treated: adjusted.treated}
    over = (row.ended_at or at) - row.created_at >= timedelta(days=section.max_days)
    design = design_of(section, row.planned)
    verdict = decide(design, decisive, met, blocks=blocks, last=over or row.live is None)
    aside = {metric: count for metric, count in aside.items() if count}
    return Look(at, verdict, met, found, aside, blocks, late, explained)


def next_step(section: Experiment, row: ExperimentRow, seen: Look) -> Step:
    """What the watcher does after a look; pure."""
    outcome = seen.verdict.outcome
    if outcome in ENDS:
        return Step("end", champion=section.control)
    if outcome == "better" and section.on_better == "promote":
        return Step("end", champion=section.treated)
    if outcome in ("better", "blocked"):
        # A person promotes, or finds what is wrong with the sample ratio; neither may take for ever.
        late = seen.at - row.created_at >= timedelta(days=section.max_days)
        return Step("end", champion=section.control) if late else Step("go_on")
    higher = [coverage for coverage in section.coverages if coverage > row.coverage]
    rested = seen.at - row.covered_at >= timedelta(hours=section.ramp_hours)
    if higher and rested and row.state == "running":
        return Step("cover", coverage=higher[0])
    return Step("go_on")


def evidence_of(seen: Look) -> dict[str, Any]:
    """A look as JSON: what is kept of it, and what every page and command shows."""
    verdict = seen.verdict
    readings = [verdict.primary, *verdict.guardrails]
    return {
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "exposures": seen.exposures,
        "counted": seen.counted,
        "sample_ratio": {
            "p": verdict.sample_ratio.p,
            "expected": verdict.sample_ratio.expected,
            "mismatch": verdict.sample_ratio.mismatch,
            "sentence": verdict.sample_ratio.sentence,
        },
        "metrics": [_told(reading, seen, primary=reading is verdict.primary) for reading in readings],
        "set_aside": seen.set_aside,
        "explained": seen.explained,
        "late": seen.late,
    }


def is_news(seen: Look, last: dict[str, Any] | None) -> bool:
    """Whether a look is worth keeping after the last one that was kept."""
    if last is None or last["outcome"] != seen.verdict.outcome:
        return True
    return sum(seen.counted.values()) >= max(1, GROWTH * sum(counted(last).values()))


def _told(reading: Reading, seen: Look, *, primary: bool) -> dict[str, Any]:
    metric = reading.metric
    means = {arm: float(one.mean) for arm, one in seen.sums[metric.name].items() if one.n}
    return {
        "metric": metric.name,
        "primary": primary,
        "kind": metric.kind,
        "higher_is_better": metric.higher_is_better,
        "margin": metric.margin,
        "means": means,
        "difference": reading.difference,
        # JSON knows no infinity: an end that is not known yet is null.
        "low": _finite(reading.low),
        "high": _finite(reading.high),
        "p": reading.p,
        "units": {"control": reading.control_n, "treated": reading.treated_n},
        "enough": reading.enough,
        "guard": None if primary else reading.guard,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
