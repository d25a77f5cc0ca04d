"""Cross-entropy at the supervised places only.

Of a fine-tuning row most tokens are prompt. The output layer of a small model with a large vocabulary is
a quarter of the work: it runs only where a next token is supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipelines.data.packing import positions
from pipelines.training.attention import ENDS, SEGMENTS, Ends
from pipelines.training.bins import Bin
from pipelines.training.together import highest

CHUNK = 2048
"""Places whose logits exist at the same time: 2,048 x 150,000 words x 4 bytes = 1.2 GB."""


@dataclass(frozen=True)
class Batch:
    """Bins as tensors: one row, end to end, so that nothing is padded."""

    tokens: Tensor
    """[1, length]"""
    positions: Tensor
    """[1, length]: restart at each example."""
    targets: Tensor
    """[1, length]: whether the token here is to be predicted from what stands before it."""
    ends: tuple[int, ...]
    """Where each example ends."""

    @classmethod
    def of(cls, bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> "Batch":
        """The batch of some bins."""
        lengths = [length for row in bins for length in row.lengths]
        tokens = [token for row in bins for token in row.tokens]
        targets = [wanted for row in bins for wanted in row.supervised]
        return cls(
            torch.tensor([tokens], device=device),
            torch.tensor([positions(lengths)], device=device),
            torch.tensor([targets], dtype=torch.bool, device=device),
            tuple(accumulate(lengths)),
        )


class SupervisedLoss(nn.Module):
    """A causal language model whose forward pass is the summed loss over a batch's supervised tokens.

    One module for the engine to wrap: ZeRO-3 gathers the parameters of its parts as they run.
    """

    def __init__(self, model: Any, *, same_calls: bool = False) -> None:
        super().__init__()
        self.model = model
        self.same_calls = same_calls
        """Run the output layer equally often on every worker: ZeRO-3 gathers it from all of them at each call."""

    @staticmethod
    def inputs_of(bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> tuple[Any, ...]:
        """What the forward pass takes, of some bins."""
        batch = Batch.of(bins, device)
        return batch.tokens, batch.positions, batch.targets, batch.ends

    def forward(
        self, tokens: Tensor, position_ids: Tensor, targets: Tensor, ends: tuple[int, ...], *, each: bool = False
    ) -> Tensor:
        """Sum of -log p over a batch's supervised tokens, in 32 bits; 0 (with gradients of 0) when there are none.

        With `each` the -log p of each of them, in their order.
        """
        return entropy(self.model, tokens, position_ids, targets, ends, each=each, same_calls=self.same_calls)


def entropy(
    model: Any,
    tokens: Tensor,
    position_ids: Tensor,
    targets: Tensor,
    ends: tuple[int, ...],
    *,
    each: bool,
    same_calls: bool,
) -> Tensor:
    """The -log p of a batch's supervised tokens (see `Batch`), summed or `each`; with gradients even when none are.

    The output layer runs on `CHUNK` places at a time, equally often on every worker with `same_calls`.
    """
    inner = unwrapped(model)
    head = inner.get_output_embeddings()
    backbone = getattr(inner, inner.base_model_prefix, None)
    # No attention mask and restarting positions: transformers then keeps a row's examples apart, if we do not.
    inputs: dict[str, Any] = {
        "input_ids": tokens,
        "position_ids": position_ids,
        "attention_mask": None,
        "use_cache": False,
    }
    if inner.config._attn_implementation == SEGMENTS:
        inputs[ENDS] = Ends(ends)
    wanted = targets[:, 1:]
    labels = tokens[:, 1:][wanted]
    if head is None or backbone is None or backbone is inner or _alters_logits(inner.config):
        # Models whose logits are not simply head(hidden): the long way.
        logits = model(**inputs).logits[:, :-1][wanted]
        return _entropy(logits, labels, each)
    hidden = backbone(**inputs).last_hidden_state
    chosen, spare = hidden[:, :-1][wanted], hidden[:1, :1]
    parts = max(1, -(-len(labels) // CHUNK))
    if same_calls:
        parts = highest(parts, hidden.device)
    if parts == 1:
        return _loss(head, chosen, labels, spare, each)
    slices = [slice(number * CHUNK, (number + 1) * CHUNK) for number in range(parts)]
    found = [checkpoint(_loss, head, chosen[part], labels[part], spare, each, use_reentrant=False) for part in slices]
    return torch.cat(found) if each else torch.stack(found).sum()


def _loss(head: nn.Module, hidden: Tensor, labels: Tensor, spare: Tensor, each: bool) -> Tensor:
    """Of some places; without any, `spare` goes through the output layer and weighs nothing."""
    if not len(labels):
        # A whole loss: what is saved last decides how far recomputing goes, and it must go through the layer's end.
        nothing = _entropy(head(spare)[0], torch.zeros(1, dtype=torch.int64, device=spare.device)) * 0.0
        return nothing.reshape(1)[:0] if each else nothing
    logits: Tensor = head(hidden)
    return _entropy(logits, labels, each)


def _entropy(logits: Tensor, labels: Tensor, each: bool = False) -> Tensor:
    loss: Tensor = nn.functional.cross_entropy(logits.float(), labels, reduction="none" if each else "sum")
    return loss


def _alters_logits(config: Any) -> bool:
    """Whether the model does something to its logits after the output layer (Gemma's soft cap, Cohere's scale)."""
    return any(
        getattr(config, name, None) not in (None, 1, 1.0)
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_scale")
    )


def unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT model, or the model itself."""
    from peft import PeftModel

    return model.base_model.model if isinstance(model, PeftModel) else model
