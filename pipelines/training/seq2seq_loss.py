"""The loss of an encoder-decoder: cross-entropy over the tokens of the targets.

A decoder's places are the target's tokens, all of them supervised: no logits are computed in vain but those of
padding, and rows of like length share a pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.models.seq2seq_tensors import Seq2SeqTensors, target_logits
from pipelines.training.bins import Bin
from pipelines.training.losses import unwrapped


class Seq2SeqLoss(nn.Module):
    """An encoder-decoder whose forward pass is the summed loss over a batch's target tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @staticmethod
    def inputs_of(bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> tuple[Tensor, ...]:
        """What the forward pass takes, of bins that hold a pair each."""
        rows = Seq2SeqTensors.of([(row.tokens, row.supervised) for row in bins], device)
        return rows.source, rows.source_mask, rows.target, rows.target_mask

    def forward(
        self, source: Tensor, source_mask: Tensor, target: Tensor, target_mask: Tensor, *, each: bool = False
    ) -> Tensor:
        """Sum of -log p over the target tokens, in 32 bits; 0 (with gradients of 0) when there are none.

        With `each` the -log p of each of them, in their order.
        """
        logits = target_logits(unwrapped(self.model), source, source_mask, target)
        loss: Tensor = nn.functional.cross_entropy(
            logits[target_mask].float(), target[target_mask], reduction="none" if each else "sum"
        )
        return loss
