"""Sources and targets as tensors, and what an encoder-decoder says at the targets: one way to train and to score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seq2SeqTensors:
    """Rows of sources and targets, each padded on the right to its own longest."""

    source: Tensor
    """[rows, source length]"""
    source_mask: Tensor
    """[rows, source length]: 1 where there is a token."""
    target: Tensor
    """[rows, target length]; at least one place, for a batch without targets must run through every layer too."""
    target_mask: Tensor
    """[rows, target length]: whether the token here is to be predicted."""

    @classmethod
    def of(
        cls, rows: Sequence[tuple[Sequence[int], Sequence[int]]], device: "torch.device | str" = "cpu"
    ) -> "Seq2SeqTensors":
        """Of (tokens, supervised) rows as `seq2seq.encode_seq2seq` gives them: the supervised end is the target."""
        sizes = [sum(map(bool, supervised)) for _, supervised in rows]
        sources = [tokens[: len(tokens) - size] for (tokens, _), size in zip(rows, sizes, strict=True)]
        targets = [tokens[len(tokens) - size :] for (tokens, _), size in zip(rows, sizes, strict=True)]
        return cls(*_padded(sources, torch.long, device), *_padded(targets, torch.bool, device))


def _padded(rows: Sequence[Sequence[int]], kind: torch.dtype, device: "torch.device | str") -> tuple[Tensor, Tensor]:
    width = max(1, *map(len, rows))
    tokens = [[*row, *[0] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, dtype=kind, device=device)


def target_logits(model: Any, source: Tensor, source_mask: Tensor, target: Tensor) -> Tensor:
    """[rows, target length, vocabulary]: at each place what the model says there, given what stands before it."""
    start = target.new_full((len(target), 1), model.config.decoder_start_token_id)
    output = model(
        input_ids=source,
        attention_mask=source_mask,
        # A decoder sees only what is before: padding behind a target needs no mask.
        decoder_input_ids=torch.cat([start, target[:, :-1]], dim=1),
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits
