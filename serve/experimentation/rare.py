"""Bounds of a share that hold at every look however rare it is: for guardrails against what should hardly happen.

The intervals of `sequential` need outcomes to be normal about. A guardrail on failures has none when all is well, and
would stay open for ever. For values between 0 and 1, and so for shares of a unit's requests too, the likelihood ratio
of a Bernoulli trial, mixed over a beta distribution, is a test martingale for each mean (Robbins 1970; Howard, Ramdas,
McAuliffe and Sekhon 2021, section 3): by Ville's inequality the means that it has not multiplied by 1 / alpha hold
the true one at every look at once, with probability 1 - alpha.
"""

import math

from scipy.optimize import brentq
from scipy.special import betaln

from serve.experimentation.arms import Arm

PRIOR = 0.5
"""Of the beta distribution, both parameters (Jeffreys): most of its mass is near 0 and 1."""
EDGE = 1e-12


def share_bounds(n: float, total: float, alpha: float) -> tuple[float, float]:
    """The least and the highest mean that `n` values between 0 and 1 with that sum leave possible, at any look."""
    if not n:
        return 0.0, 1.0
    mixed = betaln(total + PRIOR, n - total + PRIOR) - betaln(PRIOR, PRIOR)

    def excess(mean: float) -> float:
        return float(mixed - total * math.log(mean) - (n - total) * math.log1p(-mean) + math.log(alpha))

    # Least at the mean that was seen, and growing away from it.
    seen = min(max(total / n, EDGE), 1 - EDGE)
    low = brentq(excess, EDGE, seen) if total and excess(EDGE) > 0 > excess(seen) else 0.0
    high = brentq(excess, seen, 1 - EDGE) if total < n and excess(seen) < 0 < excess(1 - EDGE) else 1.0
    return float(low), float(high)


def difference_bounds(control: Arm, treated: Arm, alpha: float) -> tuple[float, float]:
    """Treated minus control of two such means: each end holds at every look with probability 1 - alpha.

    Half of alpha for each arm. Wider than what is asymptotic, and honest where nothing has happened yet.
    """
    (control_low, control_high), (low, high) = (
        share_bounds(float(arm.n), float(arm.total), alpha / 2) for arm in (control, treated)
    )
    return low - control_high, high - control_low


def units_for(margin: float, share: float, alpha: float) -> int:
    """Units in both arms together after which a harm that never happens is known to be within `margin`.

    `share`: of the units, those of the treated arm.
    """
    if margin >= 1:
        return 0
    # The bound falls with the units: the first number of them with which it is below the margin.
    low, high = 1, 2
    while share_bounds(high, 0, alpha / 2)[1] >= margin:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share_bounds(middle, 0, alpha / 2)[1] < margin else (middle, high)
    # Units fall into the arms by chance: all but one in a thousand experiments have `high` of them in this one.
    spread = 3.1 * math.sqrt(1 - share)
    root = (spread + math.sqrt(spread**2 + 4 * high)) / 2
    return math.ceil(root**2 / share)
