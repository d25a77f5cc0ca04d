"""CUPED: what a unit did before the experiment explains part of what it does in it, and leaves less noise.

Deng, Xu, Kohavi and Walker, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment
data", WSDM 2013, section 3. The covariate must have been measured before the unit's first exposure: one that the
experiment itself can move takes away part of the effect, and no figure shows that it did.
"""

from dataclasses import dataclass

import numpy as np

from serve.experimentation.arms import Arm, Figures


@dataclass(frozen=True)
class Paired:
    """Sufficient statistics of a metric and its covariate in one arm; arrays of looks as in `Arm`."""

    metric: Arm
    covariate: Arm
    products: Figures
    """Sum over the units of metric times covariate."""


@dataclass(frozen=True)
class Adjusted:
    """Both arms after the adjustment, for a metric of kind `mean` whatever it was before."""

    control: Arm
    treated: Arm
    theta: np.ndarray
    reduction: np.ndarray
    """Share of the variance within the arms that the covariate explains: with .3, 30 % fewer units do."""


def paired_of(values: np.ndarray, covariate: np.ndarray) -> Paired:
    """The statistics of one value and one covariate per unit."""
    assert len(values) == len(covariate), f"{len(values)} values beside {len(covariate)} covariates"
    arms = [Arm(len(of), float(np.sum(of)), float(np.sum(np.square(of)))) for of in (values, covariate)]
    return Paired(arms[0], arms[1], float(np.sum(values * covariate)))


def adjust(control: Paired, treated: Paired) -> Adjusted:
    """Both arms' statistics of metric - theta (covariate - its mean over both arms).

    theta is the covariance over the variance, both within the arms: between them the effect would count as
    covariance. The difference stays what it was on average, as the covariate knows nothing of the arms. A covariate
    that never varies changes nothing.
    """
    covariance = _within(control) + _within(treated)
    variance = _spread(control.covariate) + _spread(treated.covariate)
    theta = np.where(variance > 0, covariance / np.where(variance > 0, variance, 1), 0.0)
    n = np.asarray(control.covariate.n, dtype=float) + treated.covariate.n
    centre = (np.asarray(control.covariate.total, dtype=float) + treated.covariate.total) / np.maximum(n, 1)
    arms = [_adjusted(arm, theta, centre) for arm in (control, treated)]
    before = _spread(control.metric) + _spread(treated.metric)
    explained = np.where(before > 0, theta * covariance / np.where(before > 0, before, 1), 0.0)
    return Adjusted(arms[0], arms[1], theta, explained)


def _adjusted(arm: Paired, theta: np.ndarray, centre: np.ndarray) -> Arm:
    n, metric, covariate = np.asarray(arm.metric.n, dtype=float), arm.metric, arm.covariate
    total = metric.total - theta * (covariate.total - n * centre)
    # Sums of (covariate - centre) times the metric, and of its square.
    crossed = arm.products - centre * metric.total
    squared = covariate.squares - 2 * centre * covariate.total + n * centre**2
    return Arm(n, total, metric.squares - 2 * theta * crossed + theta**2 * squared)


def _spread(arm: Arm) -> np.ndarray:
    return np.asarray(arm.variance * np.maximum(np.asarray(arm.n) - 1, 0))


def _within(arm: Paired) -> np.ndarray:
    return np.asarray(arm.products - np.asarray(arm.metric.total) * arm.covariate.mean)
