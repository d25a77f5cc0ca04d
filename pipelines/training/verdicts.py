"""Training's gates and findings: what its figures come to. Pure."""

import math
from typing import Any

from cluster.errors import UserError
from pipelines.gates import Finding, Gate, decide
from pipelines.training.encoding import SideFigures
from pipelines.training.job import PREFERENCE_FIGURES

MAX_LOST_SHARE = 0.05
"""Of examples that are dropped or cut; more, and the model learns from another set than was audited."""


def kept_loss(outcome: dict[str, Any]) -> float:
    """Validation loss of the weights that were kept."""
    losses = {entry["step"]: entry["validation_loss"] for entry in outcome["history"]}
    return float(losses.get(outcome["kept_step"], math.nan))


def kept_figures(outcome: dict[str, Any]) -> dict[str, float]:
    """What was measured beside the validation loss of the weights that were kept: of preference pairs only."""
    entries = {entry["step"]: entry for entry in outcome["history"]}
    kept = entries.get(outcome["kept_step"], {})
    return {name: kept[name] for name in PREFERENCE_FIGURES if name in kept}


def supervision_gate(figures: SideFigures) -> Gate:
    """Every example that was kept teaches something, and to stop as well."""
    unended = figures.unended - figures.truncated
    holds = figures.kept > 0 and figures.untaught == 0 and unended <= 0
    share = figures.supervised_tokens / max(1, figures.tokens)
    return decide(
        "train.supervision",
        holds,
        f"{figures.kept} examples teach {figures.supervised_tokens} of their {figures.tokens} tokens ({share:.0%}); "
        f"{figures.untaught} teach nothing, {max(0, unended)} do not teach where to stop.",
    )


def truncation_gate(figures: SideFigures) -> Gate:
    """No more than a small share of the examples is lost to max_length."""
    lost = figures.overlong / max(1, figures.examples)
    return decide(
        "train.truncation",
        lost <= MAX_LOST_SHARE,
        f"{figures.dropped} examples dropped and {figures.truncated} cut of {figures.examples} ({lost:.1%}, at most "
        f"{MAX_LOST_SHARE:.0%}); {figures.tokens_lost} tokens lost.",
    )


def check_sides(train: SideFigures, validation: SideFigures) -> None:
    """Raise UserError when a side has nothing that can be learnt or measured."""
    for side, figures in (("training", train), ("validation", validation)):
        if not figures.bins:
            raise UserError(
                f"The {side} side has nothing left: of {figures.examples} examples {figures.dropped} are longer than "
                f"train.max_length and {figures.untaught} have no answer to learn.",
                "Raise train.max_length, set train.on_overlong: truncate, or add examples.",
            )


def check_pairs(objective: str, side: str, examples: int, without: int) -> None:
    """Raise UserError when examples of a side that preferences are to be learnt from have no rejected answer."""
    if without:
        raise UserError(
            f"train.objective {objective} learns from preference pairs, and {without} of {examples} examples of the "
            f"{side} side have no rejected answer.",
            "Bring rows of prompt, chosen and rejected (dataset.format: preference), or set train.objective: sft.",
        )


def overfit_gate(outcome: dict[str, Any], kept: float) -> Gate:
    """What is kept is the best that validation saw, and it is more than learning by heart.

    Closed when a later, worse state was kept, or when the training loss fell below what the untrained base
    has on validation while the validation loss did not.
    """
    best, baseline = outcome["stopping"]["best_loss"], outcome["baseline_loss"]
    last, learnt = outcome["last_validation_loss"], outcome["last_train_loss"]
    by_heart = kept >= baseline and learnt < baseline
    holds = math.isfinite(kept) and kept <= best + 1e-9 and not by_heart
    return decide(
        "train.overfit",
        holds,
        f"Kept step {outcome['kept_step']} of {outcome['step']}: validation loss {kept:.3f} (lowest {best:.3f}, last "
        f"{last:.3f}); training ended at {learnt:.3f}, a gap of {last - learnt:+.3f}. {_overfit_told(outcome, holds)}",
    )


def _overfit_told(outcome: dict[str, Any], best_kept: bool) -> str:
    """Whether validation rose while training fell, since when and by how much, and what became of it."""
    seen = outcome.get("overfit")
    if not seen:
        return "No overfitting was seen."
    since = f"step {seen['since_step']}" if seen["since_step"] else "the start"
    kept = "the best weights were kept" if best_kept else "what was kept is overfit"
    return (
        f"Overfitting since {since}: by step {seen['seen_at_step']} the validation loss rose by "
        f"{seen['difference']:+.3f} [{seen['low']:+.3f}, {seen['high']:+.3f}] while the training loss fell from "
        f"{seen['train_loss_then']:.3f} to {seen['train_loss']:.3f}; {kept}."
    )


def converged_gate(outcome: dict[str, Any], kept: float) -> Gate:
    """The kept weights predict validation better than the base did."""
    baseline, gain = outcome["baseline_loss"], outcome.get("against_base") or {}
    interval = "" if gain.get("low") is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    before, after = outcome["baseline_figures"], kept_figures(outcome)
    if after:
        beside = (
            f"reward margin {before['reward_margin']:+.3f} to {after['reward_margin']:+.3f}, held-out pairs told right "
            f"{before['reward_accuracy']:.0%} to {after['reward_accuracy']:.0%}"
        )
    else:
        beside = f"perplexity {math.exp(min(baseline, 50)):.1f} to {math.exp(min(kept, 50)):.1f}"
    return decide(
        "train.converged",
        math.isfinite(kept) and kept < baseline,
        f"Validation loss {baseline:.3f} before training and {kept:.3f} kept ({kept - baseline:+.3f}{interval}; "
        f"{beside}).",
    )


def budget_findings(outcome: dict[str, Any], planned: int) -> tuple[Finding, ...]:
    """That a budget ended the run before its last step."""
    if not outcome["ended_by"] or outcome["step"] >= planned:
        return ()
    return (
        Finding(
            code="train.converged.budget",
            severity="warning",
            message=f"Training ended at step {outcome['step']} of {planned}: {outcome['stopped_because']}.",
            count=planned - outcome["step"],
            remedy=f"Raise train.{outcome['ended_by']}, or plan fewer steps: the learning rate never came to its end.",
        ),
    )


def input_findings(figures: SideFigures, side: str = "train") -> tuple[Finding, ...]:
    """What of a side was lost or changed on the way to tokens."""
    where = "" if side == "train" else f"of the {side} side "
    suffix = "" if side == "train" else f".{side}"
    told = (
        ("dropped", "train.truncation.dropped", "are longer than train.max_length and were left out",
         "Raise train.max_length, or set train.on_overlong: truncate."),
        ("truncated", "train.truncation.cut", "were cut at train.max_length", "Raise train.max_length."),
        ("untaught", "train.supervision.nothing", "have no answer to learn and were left out", "Remove or mend them."),
        ("unended", "train.supervision.end", "do not teach where the answer ends", "Raise train.max_length, or use a "
         "base whose chat template closes the assistant's turn with a special token."),
        ("earlier_answers", "train.supervision.earlier", "have answers before the last, which an encoder-decoder reads "
         "and does not learn", "To learn them all, give each answer an example of its own."),
        ("escaped", "train.supervision.special", "", "Look whether these texts are meant to be there."),
    )  # fmt: skip
    return tuple(
        Finding(
            code=code + suffix,
            severity="info" if name in ("escaped", "earlier_answers") else "warning",
            message=f"{count} special tokens {where}stood in the text and were made plain text."
            if name == "escaped"
            else f"{count} of {figures.examples} examples {where}{what}.",
            count=count,
            samples=tuple({"id": example} for example in figures.samples.get(name, ())),
            remedy=remedy,
        )
        for name, code, what, remedy in told
        if (count := getattr(figures, name))
    )
