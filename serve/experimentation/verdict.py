"""What an experiment says so far: each metric's interval, the state of each guardrail, and one verdict.

Read anew at every look from what the database has summed up. The order in which a verdict is sought: a wrong sample
ratio blocks all others; then harm; then worse, better; and only at the planned number of units an end without either.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.errors import UserError
from serve.experimentation.arms import MIN_OUTCOMES, MIN_UNITS, Arm, Kind, difference, is_enough, units, z_score
from serve.experimentation.rare import difference_bounds
from serve.experimentation.sample_ratio import SampleRatio, check_sample_ratio
from serve.experimentation.sequential import Plan, bound, interval, p_value

Outcome = Literal["blocked", "harm", "worse", "better", "non_inferior", "no_verdict", "undecided"]
Guard = Literal["harmed", "safe", "open"]


@dataclass(frozen=True)
class Metric:
    """One figure per unit, and what of it is good."""

    name: str
    kind: Kind
    higher_is_better: bool = True
    margin: float = 0.0
    """How much worse the treated arm may be, in the metric's own units (a share of 1 for a binary one). With 0 a
    guardrail is safe only once it is shown to be better."""
    bounded: bool = False
    """Whether every unit's figure lies between 0 and 1: then bounds are known however rare it is."""

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise UserError(
                f"Metric {self.name}: the margin is {self.margin:g}.", "Say how much worse is bearable, 0 or more."
            )


@dataclass(frozen=True)
class Design:
    """What is fixed before the start; raises UserError for what cannot be decided."""

    primary: Metric
    guardrails: tuple[Metric, ...]
    weights: Mapping[str, float]
    """Arm -> weight, of all arms of the experiment."""
    control: str
    treated: str
    planned: int
    """N*: units of these two arms together at which the experiment ends."""
    alpha: float = 0.05

    def __post_init__(self) -> None:
        names = [self.primary.name, *(metric.name for metric in self.guardrails)]
        problems = [
            f"metric {name} is named twice" for name in sorted({name for name in names if names.count(name) > 1})
        ]
        problems += [f"arm {arm} has a weight below 0" for arm, weight in self.weights.items() if not weight >= 0]
        pair = [self.weights.get(arm, 0.0) for arm in (self.control, self.treated)]
        problems += [
            f"arm {arm} has no weight"
            for arm, weight in zip((self.control, self.treated), pair, strict=True)
            if not weight
        ]
        if self.control == self.treated:
            problems.append(f"arm {self.control} cannot be compared with itself")
        means = any(metric.kind == "mean" for metric in (self.primary, *self.guardrails))
        needed = math.ceil(MIN_UNITS * sum(pair) / min(pair)) if means and min(pair) > 0 else MIN_UNITS
        if self.planned < needed:
            problems.append(f"{self.planned} planned units are fewer than the {needed} of any verdict")
        if not 0 < self.alpha < 0.5:
            problems.append(f"alpha is {self.alpha:g} and must lie between 0 and 0.5")
        if problems:
            told = "; ".join(problems)
            raise UserError(f"The experiment cannot decide: {told}.", "Correct its design before it starts.")

    @property
    def plan(self) -> Plan:
        """The sequence's: with several treated arms alpha is shared out among them (Bonferroni)."""
        return Plan(self.planned, self.alpha / (sum(weight > 0 for weight in self.weights.values()) - 1))


@dataclass(frozen=True)
class Reading:
    """One metric so far. Treated minus control in the metric's own units, whichever direction is good."""

    metric: Metric
    difference: float
    low: float
    high: float
    """The two-sided confidence sequence's ends; infinite while too little is in."""
    p: float
    """Always-valid, of no difference; 1 while too little is in."""
    worst: float
    """How far the one-sided sequence reaches in the bad direction, with good upwards: above minus the margin is
    non-inferior."""
    best: float
    """The same in the good direction: below minus the margin is harm."""
    control_n: int
    treated_n: int
    enough: bool

    @property
    def guard(self) -> Guard:
        """The metric's state as a guardrail."""
        if self.best < -self.metric.margin:
            return "harmed"
        return "safe" if self.worst > -self.metric.margin else "open"

    @property
    def sign(self) -> int:
        """1 or -1: beyond zero in the good or the bad direction; else 0."""
        direction = (self.low > 0) - (self.high < 0)
        return direction if self.metric.higher_is_better else -direction

    def __str__(self) -> str:
        return f"{self.metric.name} {self.difference:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"


@dataclass(frozen=True)
class Verdict:
    """What may be done: `better` may be promoted, `harm` is rolled back at once, of all else no change is shipped."""

    outcome: Outcome
    sentence: str
    primary: Reading
    guardrails: tuple[Reading, ...]
    sample_ratio: SampleRatio


def decide(
    design: Design, statistics: Mapping[str, Mapping[str, Arm]], exposures: Mapping[str, int], *, last: bool = False
) -> Verdict:
    """The verdict at this look. `statistics`: metric -> arm -> its sums; `exposures`: arm -> units, of all arms.

    `last`: no more units will come, though fewer than planned are in.

    Guardrails are tested one-sided (arXiv 2103.06476, appendix B), each at the treated arm's share of alpha: harmed
    beyond the margin, or safe within it, without which nothing is better or non-inferior. As all must hold, alpha is
    not shared out among them.
    """
    primary = read(design, design.primary, statistics)
    guardrails = tuple(read(design, metric, statistics) for metric in design.guardrails)
    ratio = check_sample_ratio(exposures, design.weights)
    outcome, sentence = _outcome(design, primary, guardrails, ratio, last)
    return Verdict(outcome, sentence, primary, guardrails, ratio)


def read(design: Design, metric: Metric, statistics: Mapping[str, Mapping[str, Arm]]) -> Reading:
    """One metric so far.

    Without enough units its interval is infinite; how far it may reach as a guardrail is known even then if it is
    bounded. Both bounds hold with probability 1 - alpha, and one follows the other: a guardrail's false alarm is at
    most twice alpha, and by simulation far below.
    """
    nothing = Arm(0, 0.0, 0.0)
    found = statistics.get(metric.name, {})
    control, treated = found.get(design.control, nothing), found.get(design.treated, nothing)
    away = float(difference(control, treated))
    counts = int(control.n), int(treated.n)
    if not is_enough(control, treated, metric.kind):
        infinite = float("inf")
        below, above = -infinite, infinite
        if metric.bounded:
            below, above = difference_bounds(control, treated, design.plan.alpha)
        worst, best = (below, above) if metric.higher_is_better else (-above, -below)
        return Reading(metric, away, -infinite, infinite, 1.0, worst, best, *counts, enough=False)
    low, high = interval(design.plan, control, treated, metric.kind)
    p = p_value(design.plan, z_score(control, treated, metric.kind), units(control, treated))
    below, above = (float(bound(design.plan, control, treated, metric.kind, side)) for side in (-1, 1))
    worst, best = (below, above) if metric.higher_is_better else (-above, -below)
    return Reading(metric, away, float(low), float(high), float(p), worst, best, *counts, enough=True)


def _outcome(
    design: Design, primary: Reading, guardrails: tuple[Reading, ...], ratio: SampleRatio, last: bool
) -> tuple[Outcome, str]:
    if ratio.mismatch:
        return "blocked", f"no figure counts until the cause is found: {ratio.sentence}"
    harmed = [reading for reading in guardrails if reading.guard == "harmed"]
    if harmed:
        told = ", ".join(f"{reading} (margin {reading.metric.margin:g})" for reading in harmed)
        return "harm", f"{design.treated} is worse than {design.control} by more than is bearable: {told}"
    if primary.sign < 0:
        return "worse", f"{design.treated} is worse than {design.control}: {primary}"
    waiting = ", ".join(reading.metric.name for reading in guardrails if reading.guard == "open")
    if primary.sign > 0 and not waiting:
        held = " and every guardrail is within its margin" if guardrails else ""
        return "better", f"{design.treated} is better than {design.control}: {primary}{held}"
    seen = primary.control_n + primary.treated_n
    if last or seen >= design.planned:
        return _end(design.treated, primary, waiting)
    if not primary.enough:
        return "undecided", f"too little is in: {_lacking(primary)}"
    if primary.sign > 0:
        return "undecided", f"{primary} is better, but {waiting} may still be worse than bearable: go on"
    return "undecided", f"no difference is shown after {seen} of {design.planned} units, {primary}: go on"


def _end(treated: str, primary: Reading, waiting: str) -> tuple[Outcome, str]:
    """At the planned number of units with neither better nor worse."""
    if not primary.enough:
        return "no_verdict", f"it is over, and too little is in: {_lacking(primary)}"
    if waiting:
        return "no_verdict", f"{waiting} may be worse than bearable, with {primary}: not to be shipped"
    if primary.guard == "safe":
        margin = f"{primary.metric.margin:g}"
        told = f"no difference is shown, and {treated} is not worse by more than {margin}: {primary}"
        return "non_inferior", told
    return "no_verdict", f"neither a difference nor its absence is shown: {primary}; not to be shipped"


def _lacking(reading: Reading) -> str:
    rule = f"{MIN_UNITS} in each arm are needed, and figures that vary"
    if reading.metric.kind == "binary":
        due = f"{MIN_OUTCOMES:g} successes and {MIN_OUTCOMES:g} failures due in each arm"
        rule = f"{MIN_UNITS} together are needed, and {due} at the rate of both"
    return f"{reading.metric.name} has {reading.control_n} and {reading.treated_n} units; {rule}"
