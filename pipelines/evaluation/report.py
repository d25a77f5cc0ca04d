"""From answers to figures: scores, intervals, best and worst examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluation.compare import Interval, Statistic, bootstrap, difference, mean
from pipelines.evaluation.metrics import ROUGE, Scorer, corpus_bleu, sentence_bleu

METRICS = ("loss", *ROUGE, "bleu", "meteor")
"""What is compared; perplexity is shown beside the loss that it is a function of."""

SHOWN_EXAMPLES = 5


@dataclass(frozen=True)
class Scored:
    """A candidate's scores, an example each; what statistics are computed from."""

    texts: Sequence[str]
    columns: dict[str, np.ndarray]
    """Metric -> (examples, k) figures whose sums the metric's statistic takes."""
    single: dict[str, np.ndarray]
    """Metric -> (examples,) its value on each example alone."""


def score(
    scorer: Scorer, texts: Sequence[str], references: Sequence[str], losses: Sequence[tuple[float, int]]
) -> Scored:
    """The scores of one candidate."""
    scores = scorer.score(texts, references)
    sums = np.array(losses, dtype=float).reshape(-1, 2)
    ones = np.ones(len(texts))
    per_example = {**scores.rouge, "meteor": scores.meteor}
    return Scored(
        texts=texts,
        columns={
            # Weighted by tokens, as in training; each example's own is the mean over its tokens.
            "loss": sums,
            "bleu": scores.bleu_counts,
            **{name: np.column_stack([values, ones]) for name, values in per_example.items()},
        },
        single={
            "loss": np.asarray(mean(sums)),
            "bleu": sentence_bleu(scores.bleu_counts),
            **per_example,
        },
    )


def statistic_of(metric: str) -> Statistic:
    """What turns a metric's summed figures into its value."""
    if metric == "perplexity":
        return lambda sums: np.exp(np.minimum(mean(sums), 700))
    return corpus_bleu if metric == "bleu" else mean


def values(scored: Scored) -> dict[str, float]:
    """Metric -> the candidate's value on all examples."""
    return {
        metric: float(statistic_of(metric)(_columns(scored, metric).sum(axis=0))) for metric in (*METRICS, "perplexity")
    }


def intervals(scored: Scored, groups: Sequence[str], resamples: int, seed: int) -> dict[str, Interval]:
    """Metric -> the candidate's own interval."""
    return {
        metric: bootstrap(_columns(scored, metric), statistic_of(metric), groups, resamples=resamples, seed=seed)
        for metric in (*METRICS, "perplexity")
    }


def comparisons(base: Scored, tuned: Scored, groups: Sequence[str], resamples: int, seed: int) -> dict[str, Interval]:
    """Metric -> interval of the paired difference, tuned minus base."""
    found = {}
    for metric in (*METRICS, "perplexity"):
        one, other = _columns(base, metric), _columns(tuned, metric)
        statistic = difference(statistic_of(metric), one.shape[1])
        found[metric] = bootstrap(np.hstack([one, other]), statistic, groups, resamples=resamples, seed=seed)
    return found


def extremes(
    base: Scored, tuned: Scored, prompts: Sequence[str], references: Sequence[str], metric: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The examples on which the tuned model gained most, and lost most, by `metric`."""
    gains = tuned.single[metric] - base.single[metric]
    if metric == "loss":
        gains = -gains
    order = np.argsort(-gains, kind="stable")

    def rows(chosen: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": prompts[i],
                "reference": references[i],
                "base": base.texts[i],
                "tuned": tuned.texts[i],
                "base_score": round(float(base.single[metric][i]), 4),
                "tuned_score": round(float(tuned.single[metric][i]), 4),
            }
            for i in chosen
        ]

    shown = min(SHOWN_EXAMPLES, len(order) // 2)
    return rows(order[:shown].tolist()), rows(order[::-1][:shown].tolist())


def plain(interval: Interval) -> dict[str, Any]:
    """An interval as JSON values."""
    return {
        "low": round(interval.low, 6),
        "high": round(interval.high, 6),
        "n": interval.n,
        "groups": interval.groups,
    }


def broken(losses: Sequence[tuple[float, int]]) -> bool:
    """Whether a loss is not a number: the weights are."""
    return not all(math.isfinite(total) for total, _ in losses)


def _columns(scored: Scored, metric: str) -> np.ndarray:
    return scored.columns["loss" if metric == "perplexity" else metric]
