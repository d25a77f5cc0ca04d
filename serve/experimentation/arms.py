"""What the database sums up of an arm's units, and the difference of two arms with its standard error.

A unit is a user or a session key, never a request: requests of one user are not independent. Every figure may be an
array of looks, all of one shape.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.recipe_experiment import ENOUGH_UNITS

Kind = Literal["binary", "mean"]
Figures = float | np.ndarray

MIN_UNITS = ENOUGH_UNITS
"""Fewer are too few for a verdict: of a binary metric in both arms together, of a mean in each."""
MIN_OUTCOMES = 5.0
"""Successes, and failures, that each arm of a binary metric must be due at the rate of both together (Cochran 1954).
Due, not seen: an arm that fails always beside one that never does is the worst harm there is."""


@dataclass(frozen=True)
class Arm:
    """Sufficient statistics of one metric in one arm."""

    n: Figures
    """Units."""
    total: Figures
    """Sum over the units; of a binary metric the successes."""
    squares: Figures
    """Sum of squares over the units; of a binary metric the successes again."""

    @property
    def mean(self) -> np.ndarray:
        """Mean over the units; 0 without any."""
        return np.asarray(self.total / np.maximum(self.n, 1))

    @property
    def variance(self) -> np.ndarray:
        """Sample variance of the units, divisor n - 1; 0 with fewer than two."""
        spread = self.squares - np.asarray(self.total) * self.mean
        # Rounding may leave a constant with a spread below zero.
        return np.asarray(np.maximum(spread, 0) / np.maximum(np.asarray(self.n) - 1, 1))


def binary_arm(n: Figures, successes: Figures) -> Arm:
    """The statistics of a binary metric, from its counts."""
    return Arm(n, successes, successes)


def arm_of(values: np.ndarray) -> Arm:
    """The statistics of one value per unit."""
    return Arm(len(values), float(np.sum(values)), float(np.sum(np.square(values))))


def difference(control: Arm, treated: Arm) -> np.ndarray:
    """Treated minus control: the difference of the unit means."""
    return np.asarray(treated.mean - control.mean)


def units(control: Arm, treated: Arm) -> np.ndarray:
    """Units in both arms together."""
    return np.asarray(control.n, dtype=float) + treated.n


def is_enough(control: Arm, treated: Arm, kind: Kind) -> np.ndarray:
    """Whether there are the units, and what varies in them, without which no verdict is given."""
    if kind == "mean":
        # A small arm's own variance is too often far too small: with 100 units together, at 95/5 and skewed figures,
        # a fifth of experiments without a difference found one. And one that was always the same so
        # far (no error in a hundred sessions) is not known without any error.
        varied = (control.variance > 0) & (treated.variance > 0)
        return np.asarray((np.minimum(control.n, treated.n) >= MIN_UNITS) & varied)
    together, successes = units(control, treated), np.asarray(control.total) + treated.total
    rarer = np.minimum(successes, together - successes)
    due = rarer / np.maximum(together, 1) * np.minimum(control.n, treated.n)
    return np.asarray((together >= MIN_UNITS) & (due >= MIN_OUTCOMES))


def standard_error(control: Arm, treated: Arm, kind: Kind, shift: Figures = 0.0) -> np.ndarray:
    """Standard error of the difference where the true one is `shift`.

    Of means: whatever the shift, Welch's or that of one variance in both arms, whichever is larger. Of proportions:
    from the two proportions that are most likely among those that differ by `shift` (Miettinen and Nurminen 1985;
    Farrington and Manning 1990); for a shift of zero that is the pooled proportion.
    """
    n, m = np.maximum(control.n, 1), np.maximum(treated.n, 1)
    if kind == "mean":
        own = control.variance / n + treated.variance / m
        # An arm that is small beside the other has, by chance, none of what is seldom: a low mean, and a variance as
        # much too low. By Welch's error alone a tenth of experiments at 90/10 found a difference that was not there.
        spread = control.variance * (n - 1) + treated.variance * (m - 1)
        common = spread / np.maximum(n + m - 2, 1) * (1 / n + 1 / m)
        return np.asarray(np.sqrt(np.maximum(own, common)))
    low, high = restricted_proportions(control, treated, shift)
    return np.asarray(np.sqrt(low * (1 - low) / n + high * (1 - high) / m))


def z_score(control: Arm, treated: Arm, kind: Kind, shift: Figures = 0.0) -> np.ndarray:
    """How many standard errors the difference lies above `shift`; infinite where nothing varies."""
    away = difference(control, treated) - shift
    error = standard_error(control, treated, kind, shift)
    exact = np.where(away == 0, 0.0, np.copysign(np.inf, away))
    return np.where(error > 0, away / np.where(error > 0, error, 1), exact)


def restricted_proportions(control: Arm, treated: Arm, shift: Figures) -> tuple[np.ndarray, np.ndarray]:
    """The most likely proportions (control, treated) of those with treated - control = `shift`.

    The root of the likelihood's cubic in closed form: Farrington and Manning 1990, appendix.
    """
    pooled = (np.asarray(control.total, dtype=float) + treated.total) / np.maximum(units(control, treated), 1)
    if np.all(np.asarray(shift) == 0):
        return pooled, pooled
    ratio = np.asarray(control.n, dtype=float) / np.maximum(treated.n, 1)
    one, two = treated.mean, control.mean
    a = 1 + ratio
    b = -(1 + ratio + one + ratio * two + shift * (ratio + 2))
    c = np.square(shift) + shift * (2 * one + ratio + 1) + one + ratio * two
    d = -one * shift * (1 + shift)
    third = b / (3 * a)
    v = third**3 - b * c / (6 * a**2) + d / (2 * a)
    u = np.where(v >= 0, 1.0, -1.0) * np.sqrt(np.maximum(third**2 - c / (3 * a), 0))
    cube = np.where(u == 0, 1.0, u**3)
    angle = (np.pi + np.arccos(np.clip(v / cube, -1, 1))) / 3
    # Rounding may leave the square where both are proportions.
    high = np.clip(2 * u * np.cos(angle) - third, np.maximum(shift, 0), np.minimum(1 + np.asarray(shift), 1))
    at_zero = np.asarray(shift) == 0
    return np.where(at_zero, pooled, high - shift), np.where(at_zero, pooled, high)
