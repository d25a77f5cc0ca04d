"""Whether the arms got the units that their weights promise: if not, no figure of the experiment is to be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from cluster.errors import UserError

MISMATCH_P = 0.001
MIN_EXPECTED = 5.0
"""Units that each arm must be due before the chi-squared distribution holds (Cochran 1954)."""


@dataclass(frozen=True)
class SampleRatio:
    """Exposures beside what the weights promise."""

    p: float
    """Of the chi-squared test; 1 while too few units are in for it."""
    expected: dict[str, float]
    """Units that each arm is due."""
    short: str | None
    """On a mismatch, the arm that lacks most, measured in standard deviations."""
    sentence: str

    @property
    def mismatch(self) -> bool:
        """Whether every verdict is blocked."""
        return self.short is not None


def check_sample_ratio(exposures: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """The chi-squared test of units per arm against the weights; a mismatch below p = .001.

    Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019. The weights must be
    those under which all these units were exposed: after a change of weights, count from the change. An arm of weight
    0 that has units is a mismatch. Raises UserError for weights that share out nothing.
    """
    if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise UserError("The arms' weights share out nothing.", "Give each arm a weight of 0 or more, one above 0.")
    arms = sorted({*weights, *(arm for arm, units in exposures.items() if units)})
    observed = np.array([exposures.get(arm, 0) for arm in arms], dtype=float)
    assert np.all(observed >= 0), "an arm has fewer than no units"
    total, shares = observed.sum(), np.array([weights.get(arm, 0.0) for arm in arms]) / sum(weights.values())
    expected = total * shares
    due = dict(zip(arms, expected.tolist(), strict=True))
    weighted = shares > 0
    stray = bool(np.any(observed[~weighted] > 0))
    if not stray and (weighted.sum() < 2 or expected[weighted].min() < MIN_EXPECTED):
        return SampleRatio(1.0, due, None, f"too few units ({total:.0f}) to judge how they are shared out")
    away = np.where(weighted, observed - expected, 0.0)
    off = away / np.sqrt(np.where(weighted, expected, 1.0))
    p = 0.0 if stray else float(chdtrc(weighted.sum() - 1, np.sum(off**2)))
    if p >= MISMATCH_P:
        return SampleRatio(p, due, None, f"units are shared out as the weights say (p = {p:.2g})")
    # The variance of an arm's count is its expectation times the share of all others.
    lacking = int(np.argmin(off / np.sqrt(np.where(weighted & (shares < 1), 1 - shares, 1.0))))
    if stray:
        strays = ", ".join(f"{arms[i]} has {observed[i]:.0f}" for i in np.flatnonzero(~weighted & (observed > 0)))
        return SampleRatio(p, due, arms[lacking], f"units are in arms that have no weight: {strays}")
    told = (
        f"arm {arms[lacking]} has {observed[lacking]:.0f} units where its weight promises {expected[lacking]:.0f} "
        f"(p = {p:.1g}): units get lost, or are counted twice"
    )
    return SampleRatio(p, due, arms[lacking], told)
