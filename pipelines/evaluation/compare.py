"""Paired comparison of two candidates on the same examples: bootstrap intervals and what they decide.

Examples that share a group (a customer, a document, a module) are not independent: whole groups are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

CONFIDENCE = 0.95
MIN_GROUPS = 10
"""Fewer independent groups than this carry no interval worth the name (Cameron, Gelbach and Miller 2008)."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Summed figures (..., k) -> the score (...): it sees sums over examples, so any resample is exact."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    n: int
    """Examples."""
    groups: int
    """Independent groups among them."""


def bootstrap(
    figures: np.ndarray, statistic: Statistic, groups: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """BCa bootstrap interval (Efron 1987; Efron and Tibshirani 1993, chapter 14) of `statistic`, by group.

    `figures` is (examples, k), of which the statistic sees sums. For a paired difference both candidates' figures
    stand side by side in a row, and the statistic subtracts. With fewer than two groups there is no interval:
    it is infinite.
    """
    examples = len(figures)
    names, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((len(names), figures.shape[1]))
    np.add.at(sums, member, figures)
    total = sums.sum(axis=0)
    estimate = float(statistic(total))
    if len(names) < 2:
        return Interval(estimate, -np.inf, np.inf, examples, len(names))
    drawn = np.asarray(statistic(_resampled(sums, resamples, seed)), dtype=float)
    without = np.asarray(statistic(total - sums), dtype=float)
    low, high = _bca(estimate, drawn, without)
    return Interval(estimate, low, high, examples, len(names))


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples, k): sums over as many groups as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    count = len(sums)
    # In blocks: the counts of all resamples at once would not fit for large test sides.
    block = max(1, 4_000_000 // count)
    parts = [
        generator.multinomial(count, np.full(count, 1 / count), size=min(block, resamples - start)) @ sums
        for start in range(0, resamples, block)
    ]
    return np.concatenate(parts)


def _bca(estimate: float, drawn: np.ndarray, without: np.ndarray) -> tuple[float, float]:
    if np.ptp(drawn) == 0:
        return float(drawn[0]), float(drawn[0])
    # Ties count half: with few distinct values the bias would otherwise be overstated.
    below = (np.sum(drawn < estimate) + 0.5 * np.sum(drawn == estimate)) / len(drawn)
    bias = ndtri(np.clip(below, 1 / (2 * len(drawn)), 1 - 1 / (2 * len(drawn))))
    away = without.mean() - without
    spread = np.sum(away**2) ** 1.5
    acceleration = np.sum(away**3) / (6 * spread) if spread > 0 else 0.0
    tails = ndtri([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    shares = ndtr(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    low, high = np.quantile(drawn, shares)
    return float(low), float(high)


def difference(statistic: Statistic, columns: int) -> Statistic:
    """The statistic of rows that hold the first candidate's `columns` figures, then the second's: second - first."""
    return lambda sums: statistic(sums[..., columns:]) - statistic(sums[..., :columns])


def mean(sums: np.ndarray) -> np.ndarray:
    """Statistic over (sum, weight) pairs: the weighted mean."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-12))


@dataclass(frozen=True)
class Decision:
    """Whether the tuned model is better than its base."""

    better: bool
    reasons: tuple[str, ...]
    """A sentence each: what holds, and what does not."""


def decide_better(comparisons: dict[str, Interval], primary: str, margins: Mapping[str, float]) -> Decision:
    """Better: the primary metric's interval lies on the good side of zero, and no guardrail may be worse.

    Comparisons are tuned minus base; a lower `loss` is better, of all others the higher value. `margins`: guardrail ->
    how far the bad end of its interval may lie beyond zero.
    """
    reasons, better = [], True
    first = comparisons[primary]
    low, high = _good(primary, first)
    if first.groups < MIN_GROUPS:
        better = False
        reasons.append(f"only {first.groups} independent groups on the test side, at least {MIN_GROUPS} are needed")
    if low > 0:
        reasons.append(f"{primary} {shown(first)}: better")
    elif high < 0:
        better = False
        reasons.append(f"{primary} {shown(first)}: worse")
    else:
        better = False
        reasons.append(f"{primary} {shown(first)}: the interval holds zero, no difference is shown")
    for name, margin in margins.items():
        worst, _ = _good(name, comparisons[name])
        if worst < -margin:
            better = False
            reasons.append(f"{name} {shown(comparisons[name])}: may be worse by more than {margin:g}")
    if better and margins:
        held = ", ".join(f"{name} {margin:g}" for name, margin in margins.items())
        reasons.append(f"no guardrail is worse by more than its margin ({held})")
    return Decision(better, tuple(reasons))


def _good(metric: str, interval: Interval) -> tuple[float, float]:
    """The interval with its good direction upwards."""
    return (-interval.high, -interval.low) if metric == "loss" else (interval.low, interval.high)


def shown(interval: Interval) -> str:
    """`+0.043 [+0.012, +0.071]`."""
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
