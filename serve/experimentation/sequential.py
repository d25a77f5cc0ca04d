"""The confidence sequence of a difference between two arms: it holds at every look, whenever one stops.

Asymptotic confidence sequences: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory
and asymptotic confidence sequences", arXiv 2103.06476. With z the difference in standard errors and N the units in
both arms, a value is outside the sequence once |z| reaches a boundary that never falls below 3.03 at alpha = .05.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from serve.experimentation.arms import Arm, Figures, Kind, difference, is_enough, standard_error, units, z_score

HALVINGS = 40
"""Of the stretch that holds an end: to a trillionth."""


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first unit is seen."""

    units: float
    """N*, of both arms together: where the sequence is tightest."""
    alpha: float = 0.05

    def __post_init__(self) -> None:
        assert self.units > 0 and 0 < self.alpha < 0.5, f"no plan: {self.units} units, alpha {self.alpha}"


def rho_squared(plan: Plan, *, one_sided: bool = False) -> float:
    """The mixture's variance that makes the sequence tightest at N*; one-sided 2 alpha replaces alpha (appendix B)."""
    log = -2 * np.log(2 * plan.alpha if one_sided else plan.alpha)
    return float((log + np.log(log + 1)) / plan.units)


def critical_z(plan: Plan, n: Figures, *, one_sided: bool = False) -> np.ndarray:
    """The boundary in standard errors after `n` units of both arms together.

    Two-sided: theorem 2.2, sqrt(2 (N rho^2 + 1) / (N rho^2) ln(sqrt(N rho^2 + 1) / alpha)). One-sided: the logarithm
    is ln(1 + sqrt(N rho^2 + 1) / (2 alpha)), appendix B.
    """
    grown = np.asarray(n) * rho_squared(plan, one_sided=one_sided)
    root = np.sqrt(grown + 1)
    log = np.log1p(root / (2 * plan.alpha)) if one_sided else np.log(root / plan.alpha)
    return np.asarray(np.sqrt(2 * (grown + 1) / grown * log))


def p_value(plan: Plan, z: Figures, n: Figures, *, one_sided: bool = False) -> np.ndarray:
    """Always-valid p: the least level at which the sequence has left the value that `z` is measured from.

    In closed form, as rho is held at the plan's alpha: else each level had a sequence of its own. One-sided, only a
    `z` above zero speaks. At most alpha exactly where z is on or beyond `critical_z`.
    """
    grown = np.asarray(n) * rho_squared(plan, one_sided=one_sided)
    root = np.sqrt(grown + 1)
    with np.errstate(over="ignore", divide="ignore"):
        if one_sided:
            weight = np.square(np.maximum(z, 0)) * grown / (2 * (grown + 1))
            return np.asarray(np.minimum(root / (2 * np.expm1(weight)), 1))
        return np.asarray(np.minimum(root * np.exp(-np.square(z) * grown / (2 * (grown + 1))), 1))


def running_p(plan: Plan, control: Arm, treated: Arm, kind: Kind) -> np.ndarray:
    """Always-valid p of no difference over successive looks (first axis): the least so far, 1 while too little is in.

    What has once been shown stays shown, as the sequence holds at all looks at once.
    """
    p = p_value(plan, z_score(control, treated, kind), units(control, treated))
    return np.minimum.accumulate(np.where(is_enough(control, treated, kind), p, 1.0), axis=0)


def interval(plan: Plan, control: Arm, treated: Arm, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """The two-sided confidence sequence of treated minus control at these looks: lower and upper ends.

    All values from which z is less than critical, so that zero is outside exactly where `p_value` of no difference is
    at most alpha. Of proportions each value is tried with its own standard error, as in the intervals of Miettinen
    and Nurminen 1985: that of zero is pooled, and would be too small for others where the arms are unequal.
    """
    critical = critical_z(plan, units(control, treated))
    return _end(control, treated, kind, critical, -1), _end(control, treated, kind, critical, 1)


def bound(plan: Plan, control: Arm, treated: Arm, kind: Kind, side: Literal[-1, 1]) -> np.ndarray:
    """The one-sided confidence sequence: the end below (`side` -1) or above (1) treated minus control."""
    return _end(control, treated, kind, critical_z(plan, units(control, treated), one_sided=True), side)


def _end(control: Arm, treated: Arm, kind: Kind, critical: np.ndarray, side: int) -> np.ndarray:
    """The value on that side of the difference from which it lies `critical` standard errors away."""
    middle = difference(control, treated)
    if kind == "mean":
        return np.asarray(middle + side * critical * standard_error(control, treated, kind))
    # The standard error of proportions changes with the value, so there is no closed form.
    inside, outside = middle, np.full_like(middle, side)
    for _ in range(HALVINGS):
        trial = (inside + outside) / 2
        out = np.abs(z_score(control, treated, kind, trial)) >= critical
        inside, outside = np.where(out, inside, trial), np.where(out, trial, outside)
    return outside
