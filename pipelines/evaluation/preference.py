"""How often people prefer one of two: a share, with an interval that holds however often it is looked at."""

from collections.abc import Callable
from math import lgamma, log

BISECTIONS = 40
"""Each halves what is not known of a bound: exact to twelve places."""


def share_interval(preferred: int, judged: int, alpha: float = 0.05) -> tuple[float, float]:
    """Bounds of the share that `preferred` of `judged` estimates, from 0 to 1.

    They hold at once for every number of judgements with probability 1 - `alpha`, so that one may stop when one likes.
    The uniform mixture of likelihoods over the likelihood of a share is a martingale where that share is the true one,
    and by Ville's inequality rarely exceeds 1 / `alpha` (Robbins 1970, Statistical methods related to the law of the
    iterated logarithm).
    """
    if not 0 <= preferred <= judged:
        raise ValueError(f"{preferred} of {judged} is no share")
    other = judged - preferred
    mixture = lgamma(preferred + 1) + lgamma(other + 1) - lgamma(judged + 2)

    def refuted(share: float) -> bool:
        if share in (0.0, 1.0):
            return bool(preferred if share == 0 else other)
        return mixture - preferred * log(share) - other * log(1 - share) >= -log(alpha)

    seen = preferred / judged if judged else 0.5
    return _edge(seen, 0.0, refuted), _edge(seen, 1.0, refuted)


def _edge(inside: float, outside: float, refuted: Callable[[float], bool]) -> float:
    """Where, between a share that stands and the end, shares begin to be refuted."""
    if not refuted(outside):
        return outside
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return outside
