"""What an experiment says so far: each metric's interval, the state of each guardrail, and one verdict.

Read anew at every look from what the database has summed up. The order in which a verdict is sought: a wrong sample
ratio blocks all others; then harm; then worse, better; and only at the planned number of units an end without either.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.errors import UserError
from serve.experimentation.arms import MIN_OUTCOMES, MIN_UNITS, Arm, Kind, difference, is_enough, units, z_score
from serve.experimentation.rare import difference_bounds
from serve.experimentation.safe_test import Blocks, p_value_now, units_of_a_safe_test
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
        if not 0 < self.alpha < 0.5:
            problems.append(f"alpha is {self.alpha:g} and must lie between 0 and 0.5")
        elif self.few:
            problems += [
                f"{metric.name} lies not between 0 and 1, and takes at least {2 * MIN_UNITS} units"
                for metric in (self.primary, *self.guardrails)
                if not metric.bounded
            ]
            needed = units_of_a_safe_test(pair, self.plan.alpha)
        else:
            needed = fewest_units((self.primary, *self.guardrails), pair)
        if not problems and self.planned < needed:
            problems.append(f"{self.planned} planned units are fewer than the {needed} of any verdict")
        if problems:
            told = "; ".join(problems)
            raise UserError(f"The experiment cannot decide: {told}.", "Correct its design before it starts.")

    @property
    def few(self) -> bool:
        """Whether too few units are planned for what is only right for many: the safe test decides."""
        return self.planned < MIN_UNITS

    @property
    def plan(self) -> Plan:
        """The sequence's: with several treated arms alpha is shared out among them (Bonferroni)."""
        return Plan(self.planned, self.alpha / max(1, sum(weight > 0 for weight in self.weights.values()) - 1))

    def guard_plan(self, metric: Metric) -> Plan:
        """The plan of a guardrail's one-sided bounds."""
        return Plan(self.planned, guard_alpha(metric, self.plan.alpha))


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
    shown: bool
    """Whether p is at most alpha: a difference is there. Of a sequence the interval excludes zero exactly then."""
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
        """1 or -1: a difference in the good or the bad direction is shown; else 0."""
        if not self.shown or not self.difference:
            return 0
        return 1 if (self.difference > 0) == self.metric.higher_is_better else -1

    def __str__(self) -> str:
        told = f"{self.metric.name} {self.difference:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"
        # The exact interval of few units asks for more than their test.
        return told + (f", p {self.p:.2g} by the safe test" if self.shown and self.low <= 0 <= self.high else "")


@dataclass(frozen=True)
class Verdict:
    """What may be done: `better` may be promoted, `harm` is rolled back at once, of all else no change is shipped."""

    outcome: Outcome
    sentence: str
    primary: Reading
    guardrails: tuple[Reading, ...]
    sample_ratio: SampleRatio


def fewest_units(metrics: Iterable[Metric], weights: Sequence[float]) -> int:
    """Units of both arms below which nothing is decided; `weights`: of the two."""
    if all(metric.kind == "binary" for metric in metrics) or not min(weights) > 0:
        return MIN_UNITS
    return math.ceil(MIN_UNITS * sum(weights) / min(weights))


def guard_alpha(metric: Metric, alpha: float) -> float:
    """Of each bound of a guardrail: one that is bounded is judged by two, exact ones and then the sequence's."""
    return alpha / 2 if metric.bounded else alpha


def decide(
    design: Design,
    statistics: Mapping[str, Mapping[str, Arm]],
    exposures: Mapping[str, int],
    *,
    blocks: Blocks | None = None,
    last: bool = False,
) -> Verdict:
    """The verdict at this look. `statistics`: metric -> arm -> its sums; `exposures`: arm -> units, of all arms.

    `blocks`: of the primary metric, where few units are planned, those that count by now. `last`: no more units will
    come, though fewer than planned are in.

    Guardrails are tested one-sided (arXiv 2103.06476, appendix B), each at the treated arm's share of alpha: harmed
    beyond the margin, or safe within it, without which nothing is better or non-inferior. As all must hold, alpha is
    not shared out among them.
    """
    assert design.few == (blocks is not None), "the safe test reads blocks, and nothing else does"
    if blocks is not None:
        primary = _read_few(design, blocks)
    else:
        primary = _read(design, design.primary, statistics, design.plan)
    guardrails = tuple(_read(design, metric, statistics, design.guard_plan(metric)) for metric in design.guardrails)
    ratio = check_sample_ratio(exposures, design.weights)
    outcome, sentence = _outcome(design, primary, guardrails, ratio, last)
    return Verdict(outcome, sentence, primary, guardrails, ratio)


def _read(design: Design, metric: Metric, statistics: Mapping[str, Mapping[str, Arm]], guard: Plan) -> Reading:
    """One metric so far; `guard`: the plan of its one-sided bounds.

    Without enough units its interval is infinite; how far it may reach as a guardrail is known even then if it is
    bounded.
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
            below, above = difference_bounds(control, treated, guard.alpha)
        worst, best = (below, above) if metric.higher_is_better else (-above, -below)
        return Reading(metric, away, -infinite, infinite, 1.0, False, worst, best, *counts, enough=False)
    low, high = interval(design.plan, control, treated, metric.kind)
    p = float(p_value(design.plan, z_score(control, treated, metric.kind), units(control, treated)))
    below, above = (float(bound(guard, control, treated, metric.kind, side)) for side in (-1, 1))
    worst, best = (below, above) if metric.higher_is_better else (-above, -below)
    shown = p <= design.plan.alpha
    return Reading(metric, away, float(low), float(high), p, shown, worst, best, *counts, enough=True)


def _read_few(design: Design, blocks: Blocks) -> Reading:
    """The primary metric of few units: the safe test's p, and an interval that is exact at every look.

    The interval asks more than the test, and may still hold zero when a difference is shown.
    """
    metric, arms = design.primary, (blocks.control, blocks.treated)
    counts = int(arms[0].n), int(arms[1].n)
    enough = min(counts) > 0
    low, high = difference_bounds(*arms, design.plan.alpha)
    worst, best = (low, high) if metric.higher_is_better else (-high, -low)
    if not enough:
        low, high = float("-inf"), float("inf")
    p = p_value_now(blocks)
    shown = p <= design.plan.alpha
    return Reading(metric, float(difference(*arms)), low, high, p, shown, worst, best, *counts, enough=enough)


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
        return _end(design, primary, waiting)
    if not primary.enough:
        return "undecided", f"too little is in: {_lacking(primary, few=design.few)}"
    if primary.sign > 0:
        return "undecided", f"{primary} is better, but {waiting} may still be worse than bearable: go on"
    return "undecided", f"no difference is shown after {seen} of {design.planned} units, {primary}: go on"


def _end(design: Design, primary: Reading, waiting: str) -> tuple[Outcome, str]:
    """At the planned number of units with neither better nor worse."""
    if not primary.enough:
        return "no_verdict", f"it is over, and too little is in: {_lacking(primary, few=design.few)}"
    if waiting:
        return "no_verdict", f"{waiting} may be worse than bearable, with {primary}: not to be shipped"
    if primary.guard == "safe":
        margin = f"{primary.metric.margin:g}"
        told = f"no difference is shown, and {design.treated} is not worse by more than {margin}: {primary}"
        return "non_inferior", told
    return "no_verdict", f"neither a difference nor its absence is shown: {primary}; not to be shipped"


def _lacking(reading: Reading, *, few: bool) -> str:
    rule = f"{MIN_UNITS} in each arm are needed, and figures that vary"
    if few:
        rule = "each arm needs one that has had its `settle_hours`"
    elif reading.metric.kind == "binary":
        due = f"{MIN_OUTCOMES:g} successes and {MIN_OUTCOMES:g} failures due in each arm"
        rule = f"{MIN_UNITS} together are needed, and {due} at the rate of both"
    return f"{reading.metric.name} has {reading.control_n} and {reading.treated_n} units; {rule}"
