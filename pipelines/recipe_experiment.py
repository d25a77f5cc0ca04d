"""The recipe's section about experiments in production: who meets which arm, what decides, and when it ends."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.section import NonNegativeFloat, PositiveFloat, Section, nearest

ArmName = Literal["base", "tuned"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

ENOUGH_UNITS = 100
"""Of both arms together: with fewer planned a safe test decides, and nothing that is only right for many."""
PLACES = 10_000
"""What assignment tells apart: shares that are no whole number of them would not be kept."""
FEEDBACK = ("thumb_up", "thumb_down", "flag", "correction", "edited")
"""edited: the share of an answer's characters that its correction changed: 0 where there is none, 1 where the answer is
not there to be compared with."""
REQUESTS = ("failed", "slow", "declined", "cut")
"""failed: the service could not answer, or broke off; slow: it took longer than `over_ms`; declined: the answer
refuses; cut: it reached its limit of tokens. What was refused (429, a prompt that is too long) is no request of these,
and who leaves before the end has had none that failed."""


class Measure(Section):
    """One figure of each unit."""

    metric: Annotated[str, Field(min_length=1, max_length=100)]
    """`event.NAME`: what /v1/events brings under NAME; `feedback.KIND`: thumb_up, thumb_down, flag, correction,
    edited; `requests.KIND`: failed, slow, declined, cut."""
    per_unit: Literal["any", "sum", "mean"] = "any"
    """`any`: 1 for a unit with a value above 0, else 0; or the sum or the mean of a unit's values (of `requests`: the
    share of its requests). A unit without any has 0."""
    higher_is_better: bool | None = None
    """Without it: of events and thumb_up the higher, of all others the lower."""
    margin: NonNegativeFloat = 0.0
    """How much worse the treated arm may be, in the metric's own units (a share of 1 with `any`)."""
    over_ms: PositiveFloat | None = None
    """Milliseconds from which a whole answer is slow, for `requests.slow`: a p95 of 5,000 ms is 5 % of requests over
    it."""

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        kind, _, name = value.partition(".")
        if kind == "event" and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
            return value
        if kind == "event":
            raise ValueError(f"{value}: an event's name is lower-case letters, digits, _ and -, 64 at most")
        known = [f"feedback.{name}" for name in FEEDBACK] + [f"requests.{name}" for name in REQUESTS]
        if value not in known:
            raise ValueError(f"{value!r} is no metric{nearest(value, [*known, 'event.NAME'])}")
        return value

    @model_validator(mode="after")
    def _slow_needs_a_limit(self) -> "Measure":
        if (self.metric == "requests.slow") != (self.over_ms is not None):
            raise ValueError("over_ms goes with requests.slow, and only with it")
        return self

    @property
    def source(self) -> str:
        """event, feedback or requests."""
        return self.metric.partition(".")[0]

    @property
    def name(self) -> str:
        """What follows the source."""
        return self.metric.partition(".")[2]

    @property
    def good_upwards(self) -> bool:
        """Whether more of it is better."""
        if self.higher_is_better is not None:
            return self.higher_is_better
        return self.source == "event" or self.metric == "feedback.thumb_up"


class PlannedEffect(Section):
    """The least difference that matters: the units that it takes to show it are reckoned before the start."""

    baseline: Annotated[float, Field(allow_inf_nan=False)]
    """What the primary metric is in the control arm, as a share of 1 with `any`."""
    difference: Annotated[float, Field(allow_inf_nan=False)]
    """Treated minus control."""
    sd: PositiveFloat | None = None
    """Standard deviation over units, for a sum or a mean; with `before_days`, of what these leave unexplained."""
    power: Annotated[float, Field(gt=0.05, lt=1)] = 0.8
    """Probability of showing that difference, if it is there."""


class Experiment(Section):
    """The candidates on live traffic; the unit is whoever `user` names, never a request."""

    primary: Measure
    """What has to be better."""
    guardrails: tuple[Measure, ...] = (Measure(metric="requests.failed", per_unit="mean", margin=0.01),)
    """What must not be worse by more than its margin; beyond it the control is put back at once."""
    control: ArmName = "base"
    """The arm that the other is compared with, and that whoever is not in the experiment meets."""
    weights: dict[ArmName, Weight] = Field(default={"base": 1.0, "tuned": 1.0})
    """Relative share of each arm among the units of the experiment; both above 0, and fixed once it has started."""
    coverage: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of all units that take part."""
    ramp: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Coverages before it, such as [0.02, 0.1, 0.2, 0.5]: both arms grow alike, and only while nothing is harmed."""
    ramp_hours: PositiveFloat = 24.0
    """Hours that each coverage of the ramp lasts at least."""
    planned_units: Annotated[int, Field(ge=8)] | None = None
    """Units in both arms together at which it ends without a verdict; or name `effect`, and they are reckoned. Fewer
    than 100 need `settle_hours`, and guardrails with margins wide enough for so few, or none."""
    effect: PlannedEffect | None = None
    """The least difference that matters."""
    settle_hours: PositiveFloat | None = None
    """For fewer than 100 planned units, where a safe test decides: hours after a unit has met its arm until it counts,
    with what is known by then of what it did in them: events that are told of later never count."""
    before_days: PositiveFloat | None = None
    """Days before the start of which the primary metric of a unit is known too, for a sum or a mean: what they explain
    of it is taken off (CUPED), so that fewer units show the same difference."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability of finding a difference that is not there."""
    max_days: PositiveFloat = 60.0
    """Days after which it ends, whatever is in; the control serves everyone unless somebody promotes."""
    on_better: Literal["wait", "promote"] = "wait"
    """What follows a treated arm that is better: a person's `sluice experiment promote`, or all traffic at once. It
    goes on until then, and what later units show may take the verdict back."""

    @property
    def treated(self) -> ArmName:
        """The arm that is tried."""
        return "tuned" if self.control == "base" else "base"

    @property
    def treated_share(self) -> float:
        """Of the units, those of the treated arm."""
        return self.weights[self.treated] / sum(self.weights.values())

    @property
    def coverages(self) -> tuple[float, ...]:
        """The ramp and what it leads to."""
        return (*self.ramp, self.coverage)

    @model_validator(mode="after")
    def _can_decide(self) -> "Experiment":
        problems = [f"weights: {arm} needs a weight above 0" for arm in ("base", "tuned") if not self.weights.get(arm)]
        for coverage in self.coverages:
            for arm, weight in self.weights.items():
                places = PLACES * coverage * weight / (sum(self.weights.values()) or 1)
                if weight and abs(places - round(places)) > 0.01 * places:
                    problems.append(
                        f"coverage {coverage:g} of arm {arm} is {places:.3g} of {PLACES:,} places, not a whole number"
                    )
        names = [measure.metric for measure in (self.primary, *self.guardrails)]
        problems += [f"{name} is named twice" for name in sorted({name for name in names if names.count(name) > 1})]
        if (self.planned_units is None) == (self.effect is None):
            problems.append("give planned_units or effect, one of the two")
        if list(self.coverages) != sorted(set(self.coverages)):
            problems.append("ramp: each coverage must be above the one before, and the last below `coverage`")
        problems += self._effect_problems() + self._few_problems()
        if self.before_days is not None and self.primary.per_unit == "any":
            problems.append("before_days: what was before explains a sum or a mean of a unit's values, not `any`")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _effect_problems(self) -> list[str]:
        effect = self.effect
        if effect is None:
            return []
        if effect.difference == 0:
            return ["effect.difference: no number of units shows a difference of zero"]
        if self.primary.per_unit != "any":
            return [] if effect.sd else [f"effect.sd is needed for the {self.primary.per_unit} of a unit's values"]
        if not (0 < effect.baseline < 1 and 0 < effect.baseline + effect.difference < 1):
            return ["effect: baseline and baseline + difference must be shares between 0 and 1"]
        return []

    def _few_problems(self) -> list[str]:
        if self.planned_units is None or self.planned_units >= ENOUGH_UNITS:
            told = f"settle_hours: goes with planned_units below {ENOUGH_UNITS}, and only with them"
            return [told] if self.settle_hours is not None else []
        if self.settle_hours is None:
            return [f"planned_units: fewer than {ENOUGH_UNITS} need settle_hours, after which a unit counts"]
        if self.primary.per_unit != "any":
            return [f"planned_units: fewer than {ENOUGH_UNITS} can only decide on a primary metric `per_unit: any`"]
        if self.settle_hours >= 24 * self.max_days:
            return [f"settle_hours: {self.settle_hours:g} are not over within max_days ({self.max_days:g})"]
        return []
