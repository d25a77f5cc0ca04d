"""From the recipe's words to what is decided with: metrics, planned units, power. Pure."""

from dataclasses import dataclass, replace

from cluster.errors import UserError
from pipelines.recipe_experiment import Experiment, Measure
from serve.experimentation import power
from serve.experimentation.rare import units_for
from serve.experimentation.verdict import Design, Metric, fewest_units, guard_alpha


@dataclass(frozen=True)
class Size:
    """How large an experiment has to be, before it starts."""

    planned: int
    """Units in both arms together at which it ends without a verdict."""
    power: float | None
    """Probability of showing the effect by then; None where the recipe names none."""
    expected: int | None
    """Units after which it ends on average, if the effect is there."""
    fixed: int | None
    """Units of a test that is done once, at the end, for the same power."""


def metric_of(measure: Measure) -> Metric:
    """The figure that is decided on."""
    kind = "binary" if measure.per_unit == "any" else "mean"
    # Of requests and feedback a mean is a share of the unit's requests.
    bounded = kind == "binary" or (measure.per_unit == "mean" and measure.source != "event")
    return Metric(measure.metric, kind, measure.good_upwards, measure.margin, bounded)  # type: ignore[arg-type]


def check_can_end(experiment: Experiment, planned: int) -> None:
    """Raise UserError for what could not decide by the planned units; before the start, as afterwards it goes on."""
    for metric in design_of(experiment, planned).guardrails:
        least = _units_to_close(experiment, metric)
        if least > planned:
            raise UserError(
                f"{metric.name} cannot be shown to be within its margin of {metric.margin:g} by {planned:,} units: "
                f"even if it never happens, that takes {least:,}.",
                "Plan for more units, or bear a wider margin.",
            )


def design_of(experiment: Experiment, planned: int) -> Design:
    """What decides. Raises UserError when it cannot."""
    primary = metric_of(experiment.primary)
    return Design(
        # What was taken off may leave a figure outside of 0 and 1.
        primary=primary if experiment.before_days is None else replace(primary, bounded=False),
        guardrails=tuple(metric_of(measure) for measure in experiment.guardrails),
        weights={str(arm): weight for arm, weight in experiment.weights.items()},
        control=experiment.control,
        treated=experiment.treated,
        planned=planned,
        alpha=experiment.alpha,
    )


def size_of(experiment: Experiment) -> Size:
    """The recipe's own number, or what its effect takes. Raises UserError when the effect takes nothing that ends."""
    effect = experiment.effect
    if effect is None:
        assert experiment.planned_units is not None, "the section asks for one of the two"
        return Size(experiment.planned_units, None, None, None)
    share, alpha = experiment.treated_share, experiment.alpha
    if experiment.primary.per_unit == "any":
        wanted = power.of_proportions(effect.baseline, effect.baseline + effect.difference, share)
    else:
        assert effect.sd is not None, "the section asks for it"
        wanted = power.of_means(effect.difference, effect.sd, share)
    measures = (experiment.primary, *experiment.guardrails)
    guards = (_units_to_close(experiment, metric_of(measure)) for measure in experiment.guardrails)
    fewest = fewest_units([metric_of(measure) for measure in measures], list(experiment.weights.values()))
    units = max(power.sequential_units(wanted, effect.power, alpha), fewest, *guards)
    return Size(
        planned=units,
        power=power.sequential_power(wanted, units, alpha),
        expected=power.sequential_stop(wanted, units, alpha),
        fixed=power.fixed_units(wanted, effect.power, alpha),
    )


def days_for(experiment: Experiment, size: Size, units_per_day: float) -> int:
    """Days until the planned units are in, at that many new units a day, those of no experiment among them.

    Raises UserError where they are more than `max_days`.
    """
    steps = len(experiment.ramp) * experiment.ramp_hours / 24
    ramped = sum(coverage * units_per_day * experiment.ramp_hours / 24 for coverage in experiment.ramp)
    left = max(0.0, size.planned - ramped)
    settling = (experiment.settle_hours or 0) / 24
    coming = left / (units_per_day * experiment.coverage) if units_per_day > 0 else 0.0
    needed = power.days(1, units_per_day) and round(steps + coming + settling + 0.499)
    if needed > experiment.max_days:
        raise UserError(
            f"{size.planned} units take {needed} days at {units_per_day:g} new units a day, and max_days is "
            f"{experiment.max_days:g}.",
            "Plan for a larger difference, less power or more traffic, or raise experiment.max_days.",
        )
    return int(needed)


def _units_to_close(experiment: Experiment, metric: Metric) -> int:
    """Units after which a guardrail on what never happens is known to be within its margin; 0 where none are known."""
    if not metric.bounded or metric.higher_is_better or not metric.margin:
        return 0
    share = min(experiment.treated_share, 1 - experiment.treated_share)
    return units_for(metric.margin, share, guard_alpha(metric, experiment.alpha))
