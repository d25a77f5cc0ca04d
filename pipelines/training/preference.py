"""Losses over preference pairs: DPO and ORPO, on bins in which a pair's two answers follow each other."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pipelines.training.bins import Bin
from pipelines.training.losses import Batch, entropy


def dpo(answers: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Losses and reward margins, [...], of the answers' summed log-probabilities, [..., 2]: chosen, rejected.

    Rafailov et al. 2023 (arXiv 2305.18290), equations 5 (reward) and 7 (loss).
    """
    rewards = beta * (answers - reference)
    margins = rewards[..., 0] - rewards[..., 1]
    return -logsigmoid(margins), margins


def orpo(answers: Tensor, lengths: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Losses and reward margins, [...], of the answers' summed log-probabilities and lengths, [..., 2].

    Hong et al. 2024 (arXiv 2403.07691), equations 2 to 7: probabilities are means over an answer's tokens, and the
    chosen answer is learnt as in supervised fine-tuning.
    """
    means = answers / lengths.clamp(min=1)
    # An answer that is certain has infinite odds.
    inverse = torch.log(-torch.expm1(means.clamp(max=-1e-6)))
    odds = means - inverse
    preference = logsigmoid(odds[..., 0] - odds[..., 1])
    return -means[..., 0] - beta * preference, beta * (means[..., 0] - means[..., 1])


class PreferenceLoss(nn.Module):
    """A causal language model whose forward pass is the summed loss over a batch's pairs.

    One module for the engine to wrap: ZeRO-3 gathers the parameters of its parts as they run.
    """

    def __init__(self, model: Any, objective: Literal["dpo", "orpo"], beta: float, *, same_calls: bool = False) -> None:
        super().__init__()
        self.model, self.objective, self.beta = model, objective, beta
        self.same_calls = same_calls
        """Run the output layer equally often on every worker (see `losses.SupervisedLoss`)."""

    @staticmethod
    def inputs_of(bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> tuple[Any, ...]:
        """What the forward pass takes, of bins in which a pair's chosen text stands before its rejected one."""
        batch = Batch.of(bins, device)
        places = np.flatnonzero([wanted for row in bins for wanted in row.supervised])
        texts = torch.from_numpy(np.searchsorted(batch.ends, places, side="right"))
        chosen, text = list[int](), 0
        for row in bins:
            chosen += range(text, text + 2 * len(row.ids), 2)
            text += len(row.lengths)
        first = torch.tensor(chosen, dtype=torch.int64)
        return batch.tokens, batch.positions, batch.targets, batch.ends, texts.to(device), first.to(device)

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        targets: Tensor,
        ends: tuple[int, ...],
        texts: Tensor,
        chosen: Tensor,
        reference: Tensor | None = None,
        *,
        each: bool = False,
        scores_only: bool = False,
    ) -> Tensor:
        """[3]: the sums over the pairs of their loss and of `job.PREFERENCE_FIGURES`; with `each` [pairs, 3].

        `texts` [supervised tokens]: the text of each, by number; `chosen` [pairs]: the chosen text of each pair, which
        its rejected one follows; `reference` [pairs, 2]: the base's scores, the summed log-probabilities of the
        answers. With `scores_only` the scores of this model instead.
        """
        found = -entropy(self.model, tokens, position_ids, targets, ends, each=True, same_calls=self.same_calls)
        # Of no pair at all there is a sum too: a worker whose bins only fill the step has gradients all the same.
        of_texts = torch.zeros(len(ends), device=found.device) + 0.0 * found.sum()
        both = torch.stack([chosen, chosen + 1], dim=1)
        scores = of_texts.index_add(0, texts, found)[both]
        if scores_only:
            return scores
        if self.objective == "dpo":
            assert reference is not None
            losses, margins = dpo(scores, reference, self.beta)
        else:
            lengths = torch.bincount(texts, minlength=len(ends))[both]
            losses, margins = orpo(scores, lengths, self.beta)
        margins = margins.detach()
        right = (margins > 0).float() + 0.5 * (margins == 0).float()
        of_pairs = torch.stack([losses, margins, right], dim=1)
        return of_pairs if each else of_pairs.sum(dim=0)
