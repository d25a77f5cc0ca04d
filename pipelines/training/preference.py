"""Losses over preference pairs: DPO and ORPO, on bins in which a pair's two answers follow each other."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils.checkpoint import checkpoint

from pipelines.training import losses


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

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        targets: Tensor,
        pairs: Tensor,
        reference: Tensor | None = None,
        *,
        scores_only: bool = False,
    ) -> Tensor:
        """[3]: the sums over the pairs of their loss and of `job.PREFERENCE_FIGURES`.

        `pairs` [rows, most] is True where a row has a pair; `reference` [rows, most, 2] holds the base's scores, the
        summed log-probabilities of the answers. With `scores_only` the scores of this model instead.
        """
        scores, lengths = self._scores(tokens, position_ids, targets, pairs.shape[1])
        if scores_only:
            return scores
        if self.objective == "dpo":
            assert reference is not None
            each, margins = dpo(scores, reference, self.beta)
        else:
            each, margins = orpo(scores, lengths, self.beta)
        margins = margins.detach()
        right = (margins > 0).float() + 0.5 * (margins == 0).float()
        # Summed with weights of 0 too: a worker whose rows only fill the step has gradients all the same.
        return torch.stack([(values * pairs).sum() for values in (each, margins, right)])

    def _scores(self, tokens: Tensor, position_ids: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Summed log-probabilities of the answers and their lengths, [rows, most, 2]."""
        rows, places = len(tokens), 2 * most
        # Every text counts its positions from 0; padding at a row's end is one more, without targets.
        text = ((position_ids == 0).cumsum(dim=1) - 1).clamp(max=places - 1)
        text = text + places * torch.arange(rows, device=tokens.device).unsqueeze(1)
        wanted = targets[:, 1:]
        of_token = text[:, 1:][wanted]
        found = self._log_probs(tokens, position_ids, wanted)
        scores = torch.zeros(rows * places, device=found.device) + 0.0 * found.sum()
        scores = scores.index_add(0, of_token, found[: len(of_token)])
        lengths = torch.zeros_like(scores).index_add(0, of_token, torch.ones_like(of_token, dtype=scores.dtype))
        return scores.view(rows, most, 2), lengths.view(rows, most, 2)

    def _log_probs(self, tokens: Tensor, position_ids: Tensor, wanted: Tensor) -> Tensor:
        """The log-probability of the token at each wanted place, in 32 bits; one of no meaning when there are none."""
        inner = losses.unwrapped(self.model)
        head = inner.get_output_embeddings()
        backbone = getattr(inner, inner.base_model_prefix, None)
        inputs = {"input_ids": tokens, "position_ids": position_ids, "attention_mask": None, "use_cache": False}
        labels = tokens[:, 1:][wanted]
        if head is None or backbone is None or backbone is inner or losses.alters_logits(inner.config):
            logits = self.model(**inputs).logits
            return (
                _of_logits(logits[:, :-1][wanted], labels) if len(labels) else _of_logits(logits[0, :1], tokens[0, :1])
            )
        hidden = backbone(**inputs).last_hidden_state
        chosen = hidden[:, :-1][wanted]
        parts = max(1, -(-len(labels) // losses.CHUNK))
        if self.same_calls:
            parts = losses.most_parts(parts, hidden.device)
        found = []
        for number in range(parts):
            part = slice(number * losses.CHUNK, (number + 1) * losses.CHUNK)
            some, their = chosen[part], labels[part]
            if not len(their):
                # The output layer runs as often as on the other workers; what comes of it weighs nothing.
                some, their = hidden[0, :1], tokens[0, :1]
            if parts == 1:
                return _of_hidden(head, some, their)
            found.append(checkpoint(_of_hidden, head, some, their, use_reentrant=False))
        return torch.cat(found)


def _of_hidden(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    return _of_logits(head(hidden), labels)


def _of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return -cross_entropy(logits.float(), labels, reduction="none")
