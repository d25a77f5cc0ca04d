"""Preference pairs as tokens: the chosen and the rejected answer to one prompt, side by side in one bin."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cluster.errors import UserError
from pipelines.data.chat import Encoded, encode
from pipelines.recipe import Train
from pipelines.training.encoding import SideFigures, fit_length

Pair = tuple[Encoded, Encoded]
"""Chosen and rejected."""


def encode_pairs(
    tokenizer: Any, rows: Sequence[tuple[str, ...]], train: Train
) -> tuple[list[tuple[str, Pair]], SideFigures]:
    """The encoded pairs of (id, messages, rejected) rows that teach a preference, and what became of the rest.

    Both texts of a pair count towards `train.max_length`: they go through the model together. Raises UserError for
    an over-long pair when the recipe says so.
    """
    figures, kept = SideFigures(), []
    for example, messages, rejected in rows:
        figures.examples += 1
        turns = json.loads(messages)
        other = [*turns[:-1], {"role": "assistant", "content": json.loads(rejected)}]
        whole = last_answer(encode(tokenizer, turns)), last_answer(encode(tokenizer, other))
        length = sum(len(encoded.tokens) for encoded in whole)
        fitted: Pair | None = whole
        if length > train.max_length:
            if train.on_overlong == "raise":
                raise UserError(
                    f"The pair {example} has {length} tokens, both answers with their prompt; train.max_length is "
                    f"{train.max_length}.",
                    "Raise train.max_length, or set train.on_overlong to drop or truncate.",
                )
            fitted = cut_pair(whole, train.max_length) if train.on_overlong == "truncate" else None
            if fitted is not None and not teaches(fitted):
                fitted = None
            figures.note("overlong", example)
            figures.note("dropped" if fitted is None else "truncated", example)
            figures.tokens_lost += length - sum(len(encoded.tokens) for encoded in fitted or ())
        if escaped := sum(encoded.escaped for encoded in whole):
            figures.note("escaped", example, escaped)
        if fitted is None:
            continue
        if not teaches(fitted):
            figures.note("untaught", example)
            continue
        if not all(encoded.ends for encoded in fitted):
            figures.note("unended", example)
        figures.kept += 1
        figures.tokens += sum(len(encoded.tokens) for encoded in fitted)
        figures.supervised_tokens += sum(sum(encoded.supervised[1:]) for encoded in fitted)
        kept.append((example, fitted))
    return kept, figures


def last_answer(encoded: Encoded) -> Encoded:
    """The same with its last answer alone supervised: the turns before it are the prompt of both answers."""
    supervised = list(encoded.supervised)
    end = next((place for place in reversed(range(len(supervised))) if supervised[place]), -1)
    start = end
    while start > 0 and supervised[start - 1]:
        start -= 1
    return replace(encoded, supervised=[start <= place <= end for place in range(len(supervised))])


def cut_pair(pair: Pair, limit: int) -> Pair:
    """Both cut at their ends to `limit` tokens together; what one leaves of its half, the other may use."""
    chosen, rejected = pair
    half = limit // 2
    of_chosen = max(half, limit - len(rejected.tokens))
    fitted = fit_length(chosen, of_chosen, "truncate")
    assert fitted is not None
    rest = fit_length(rejected, limit - len(fitted.tokens), "truncate")
    assert rest is not None
    return fitted, rest


def teaches(pair: Pair) -> bool:
    """Whether both have an answer, and not the same one."""
    chosen, rejected = pair
    return any(chosen.supervised[1:]) and any(rejected.supervised[1:]) and chosen.tokens != rejected.tokens
