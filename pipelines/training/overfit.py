"""Overfitting: validation rises while training falls, told by a paired difference with its interval. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much higher one loss is than another on the same examples (nats per token)."""

    estimate: float
    low: float
    high: float
    groups: int
    """Independent groups among the examples."""

    def as_json(self) -> dict[str, float | None]:
        """Plain values; without an interval its ends are None."""
        known = bool(np.isfinite(self.low))
        return {
            "difference": self.estimate,
            "low": self.low if known else None,
            "high": self.high if known else None,
            "groups": self.groups,
        }


def paired_difference(
    before: np.ndarray, after: np.ndarray, tokens: np.ndarray, groups: np.ndarray, *, comparisons: int = 1
) -> Difference:
    """After minus before, of losses that are summed per example over its supervised `tokens`.

    The mean weighs examples by their tokens, as the validation loss does. Examples of one group (an integer each) are
    not independent: the interval is cluster-robust (Liang and Zeger 1986; Cameron and Miller 2015, section II), with
    Student's t for so many groups less one. `comparisons`: among so many the pair was chosen, so each interval is
    wider (Bonferroni): the best of many validations owes something to luck. With fewer than two groups there is no
    interval: it is infinite.
    """
    change, weight = after - before, float(tokens.sum())
    estimate = float(change.sum() / max(1.0, weight))
    count = int(groups.max(initial=-1)) + 1
    if count < 2:
        return Difference(estimate, -np.inf, np.inf, count)
    residuals = np.bincount(groups, weights=change - estimate * tokens, minlength=count)
    error = float(np.sqrt(count / (count - 1) * np.sum(residuals**2)) / weight)
    reach = float(stdtrit(count - 1, 1 - (1 - CONFIDENCE) / (2 * max(1, comparisons)))) * error
    return Difference(estimate, estimate - reach, estimate + reach, count)


def overfit_at(
    history: Sequence[Mapping[str, Any]], since: int, rise: Difference, losses: tuple[float, float]
) -> dict[str, Any] | None:
    """What the last validation of `history` shows of overfitting since the step `since`, or None.

    Overfitting: the whole interval of the validation loss's `rise` lies above zero while the training loss, over the
    steps since, lies below what it was up to there. `losses`: of validation, then and now. Since step 0 (validation
    was never better than the untrained base) training is measured from its first losses.
    """
    if not rise.low > 0:
        return None
    known = [entry for entry in history if entry["step"] <= since] or list(history[:1])
    later = [entry["train_loss"] for entry in history if entry["step"] > known[-1]["step"]]
    if not later or not float(np.mean(later)) < known[-1]["train_loss"]:
        return None
    return {
        "since_step": since,
        "seen_at_step": history[-1]["step"],
        "validation_loss_then": losses[0],
        "validation_loss": losses[1],
        "train_loss_then": known[-1]["train_loss"],
        "train_loss": history[-1]["train_loss"],
        **rise.as_json(),
    }


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """Names of groups as integers from 0 without gaps."""
    return np.asarray(np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1], dtype=np.int64)


def by_loss(
    ids: Sequence[str], tokens: np.ndarray, kept: np.ndarray, base: np.ndarray | None, count: int
) -> dict[str, list[dict[str, Any]]]:
    """The `count` examples with the highest and with the lowest loss per token: {"worst": [...], "best": [...]}.

    `kept` and `base` are summed per example, with the kept weights and with the untrained base.
    """
    order = np.argsort(kept / np.maximum(tokens, 1), kind="stable")

    def entry(place: int) -> dict[str, Any]:
        weight = max(1, int(tokens[place]))
        return {
            "id": ids[place],
            "loss": float(kept[place]) / weight,
            "base_loss": None if base is None else float(base[place]) / weight,
            "tokens": int(tokens[place]),
        }

    count = min(count, len(ids) // 2) or min(1, len(ids))
    return {"worst": [entry(i) for i in order[::-1][:count]], "best": [entry(i) for i in order[:count]]}
