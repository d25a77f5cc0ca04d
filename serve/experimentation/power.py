"""How many units an experiment takes, and days: before it starts, so that none is begun that cannot end.

Totals of both arms throughout. A fixed number of units, looked at once, is the least; to look at every unit costs
more if the effect is just the one planned for, and saves when it is larger.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from cluster.errors import UserError
from serve.experimentation.sequential import Plan, critical_z

STEPS = 64
"""Of time, up to N*."""
POINTS = 96
"""Of the difference, between the boundaries."""


@dataclass(frozen=True)
class Effect:
    """The difference that is to be found, and how much one unit's worth of it varies."""

    difference: float
    reckoned_sd: float
    """Standard error times the square root of the units, as the test reckons it."""
    true_sd: float
    """The same as it is if there is that difference: another only for proportions, which the test pools."""


def of_proportions(control: float, treated: float, share: float = 0.5) -> Effect:
    """The effect of two proportions, `share` of the units being in the treated arm.

    Raises UserError for proportions outside (0, 1), equal ones, or a share outside (0, 1).
    """
    _check(share, treated - control)
    if not (0 < control < 1 and 0 < treated < 1):
        raise UserError(
            f"{control:g} and {treated:g} are not proportions between 0 and 1.", "Give shares, not per cent."
        )
    pooled = (1 - share) * control + share * treated
    own = control * (1 - control) / (1 - share) + treated * (1 - treated) / share
    return Effect(treated - control, math.sqrt(pooled * (1 - pooled) / (share * (1 - share))), math.sqrt(own))


def of_means(difference: float, sd: float, share: float = 0.5, *, treated_sd: float | None = None) -> Effect:
    """The effect of two means of units with that standard deviation (the treated arm's may be another).

    Raises UserError for a difference of zero, a standard deviation of zero or less, or a share outside (0, 1).
    """
    _check(share, difference)
    other = sd if treated_sd is None else treated_sd
    if not (sd > 0 and other > 0):
        raise UserError("Units that do not vary need no experiment.", "Give a standard deviation above 0.")
    spread = math.sqrt(sd**2 / (1 - share) + other**2 / share)
    return Effect(difference, spread, spread)


def fixed_units(effect: Effect, power: float = 0.8, alpha: float = 0.05) -> int:
    """Units for that power if the test is done once, at the end.

    Of proportions: Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions", 3rd ed. 2003, chapter 4,
    pooled without and own variances with the difference, no continuity correction. Of means: the normal formula.
    """
    _check_errors(power, alpha)
    needed = float(ndtri(1 - alpha / 2) * effect.reckoned_sd + ndtri(power) * effect.true_sd)
    return math.ceil((needed / effect.difference) ** 2)


def fixed_power(effect: Effect, units: float, alpha: float = 0.05) -> float:
    """The power of one test after that many units; the inverse of `fixed_units`."""
    away = abs(effect.difference) * math.sqrt(units) - ndtri(1 - alpha / 2) * effect.reckoned_sd
    return float(ndtr(away / effect.true_sd))


def sequential_units(effect: Effect, power: float = 0.8, alpha: float = 0.05) -> int:
    """N* for which the confidence sequence shows the effect by N* with that power.

    By root finding on `crossing`: the path of the difference is taken as Brownian motion with drift, watched at every
    moment. The minimum of units before a verdict is not in it, and is felt only where N* is a few hundred.
    """
    _check_errors(power, alpha)
    drift = _needed_drift(power, alpha, effect.reckoned_sd / effect.true_sd)
    return math.ceil((drift * effect.true_sd / effect.difference) ** 2)


def sequential_power(effect: Effect, units: float, alpha: float = 0.05) -> float:
    """The probability that the confidence sequence of N* = `units` shows the effect by N*."""
    drift = abs(effect.difference) * math.sqrt(units) / effect.true_sd
    return crossing(drift, alpha, effect.reckoned_sd / effect.true_sd)[0]


def sequential_stop(effect: Effect, units: float, alpha: float = 0.05) -> int:
    """Units after which an experiment of N* = `units` ends on average if the effect is there."""
    drift = abs(effect.difference) * math.sqrt(units) / effect.true_sd
    return math.ceil(units * crossing(drift, alpha, effect.reckoned_sd / effect.true_sd)[1])


def days(units: int, units_per_day: float) -> int:
    """Days for that many units; raises UserError without traffic."""
    if not units_per_day > 0:
        raise UserError("Without traffic no experiment ends.", "Give the units per day that the experiment will see.")
    return math.ceil(units / units_per_day)


def crossing(drift: float, alpha: float = 0.05, scale: float = 1.0) -> tuple[float, float]:
    """Probability that the sequence has left zero by N*, and the mean share of N* at which an experiment ends.

    `drift` is the difference in its standard errors at N*; `scale` multiplies the boundary. Recursive integration
    over steps of time (Armitage, McPherson and Rowe 1969) with Gauss-Legendre points; between two steps the chance
    that a Brownian bridge crosses the boundary, taken as straight there, is exp(-2 a b / step) for ends a and b away
    from it.
    """
    # At N* = 1 the boundary depends on alpha alone; at time 0 it has a limit.
    times, step = np.concatenate([[1e-9], np.arange(1, STEPS + 1) / STEPS]), 1 / STEPS
    edges = scale * critical_z(Plan(1.0, alpha), times) * np.sqrt(times)
    nodes, node_weights = np.polynomial.legendre.leggauss(POINTS)
    places, mass, alive = np.zeros(1), np.ones(1), [1.0]
    for before, edge in pairwise(edges.tolist()):
        to = edge * nodes
        moved = np.exp(-((to - (places + drift * step)[:, None]) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        for side in (-1, 1):
            gaps = (before - side * places)[:, None] * (edge - side * to)
            moved *= -np.expm1(-2 * gaps / step)
        places, mass = to, (mass @ moved) * edge * node_weights
        alive.append(float(mass.sum()))
    return 1 - alive[-1], float(np.trapezoid(alive, dx=step))


@lru_cache(maxsize=256)
def _needed_drift(power: float, alpha: float, scale: float) -> float:
    return float(brentq(lambda drift: crossing(drift, alpha, scale)[0] - power, 0.0, 30.0, xtol=1e-6))


def _check(share: float, difference: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"{share:g} is no share of the units.", "Give the treated arm a share between 0 and 1.")
    if difference == 0:
        raise UserError("No number of units shows a difference of zero.", "Name the least difference that matters.")


def _check_errors(power: float, alpha: float) -> None:
    if not (0 < alpha < 0.5 and alpha < power < 1):
        raise UserError(f"Power {power:g} at alpha {alpha:g} cannot be had.", "Take for example 0.8 at 0.05.")
