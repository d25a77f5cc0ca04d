"""Cross-entropy at the supervised places only.

Of a fine-tuning row most tokens are prompt. The output layer of a small model with a large vocabulary is
a quarter of the work: it runs only where a next token is supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipelines.data.packing import positions
from pipelines.training.bins import Bin

CHUNK = 2048
"""Places whose logits exist at the same time: 2,048 x 150,000 words x 4 bytes = 1.2 GB."""


@dataclass(frozen=True)
class Batch:
    """Bins as tensors, padded to the longest."""

    tokens: Tensor
    """[rows, length]"""
    positions: Tensor
    """[rows, length]: restart at each example; padding counts as an example of its own."""
    targets: Tensor
    """[rows, length]: whether the token here is to be predicted from what stands before it."""

    @classmethod
    def of(cls, bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> "Batch":
        """The batch of some bins."""
        width = max(len(row.tokens) for row in bins)
        spare = [width - len(row.tokens) for row in bins]
        return cls(
            torch.tensor([row.tokens + [0] * n for row, n in zip(bins, spare, strict=True)], device=device),
            torch.tensor(
                [positions([*row.lengths, *([n] if n else [])]) for row, n in zip(bins, spare, strict=True)],
                device=device,
            ),
            torch.tensor(
                [row.supervised + [0] * n for row, n in zip(bins, spare, strict=True)],
                dtype=torch.bool,
                device=device,
            ),
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
    def inputs_of(bins: Sequence[Bin], device: "torch.device | str" = "cpu") -> tuple[Tensor, ...]:
        """What the forward pass takes, of some bins."""
        batch = Batch.of(bins, device)
        return batch.tokens, batch.positions, batch.targets

    def forward(self, tokens: Tensor, position_ids: Tensor, targets: Tensor) -> Tensor:
        """Sum of -log p over the supervised tokens, in 32 bits; 0 (with gradients of 0) when there are none."""
        inner = unwrapped(self.model)
        head = inner.get_output_embeddings()
        backbone = getattr(inner, inner.base_model_prefix, None)
        # No attention mask and restarting positions: transformers then keeps a row's examples apart.
        inputs = {"input_ids": tokens, "position_ids": position_ids, "attention_mask": None, "use_cache": False}
        wanted = targets[:, 1:]
        labels = tokens[:, 1:][wanted]
        if head is None or backbone is None or backbone is inner or _alters_logits(inner.config):
            # Models whose logits are not simply head(hidden): the long way.
            logits = self.model(**inputs).logits[:, :-1][wanted]
            return _entropy(logits, labels)
        hidden = backbone(**inputs).last_hidden_state
        chosen, spare = hidden[:, :-1][wanted], hidden[:1, :1]
        parts = max(1, -(-len(labels) // CHUNK))
        if self.same_calls:
            parts = _most(parts, hidden.device)
        if parts == 1:
            return _loss(head, chosen, labels, spare)
        total: Tensor = hidden.new_zeros((), dtype=torch.float32)
        for number in range(parts):
            part = slice(number * CHUNK, (number + 1) * CHUNK)
            total = total + checkpoint(_loss, head, chosen[part], labels[part], spare, use_reentrant=False)
        return total


def _most(count: int, device: torch.device) -> int:
    """The highest count of all workers."""
    tensor = torch.tensor([count], dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor[0])


def _loss(head: nn.Module, hidden: Tensor, labels: Tensor, spare: Tensor) -> Tensor:
    """Of some places; without any, `spare` goes through the output layer and weighs nothing."""
    if not len(labels):
        # A whole loss: what is saved last decides how far recomputing goes, and it must go through the layer's end.
        return _entropy(head(spare)[0], torch.zeros(1, dtype=torch.int64, device=spare.device)) * 0.0
    logits: Tensor = head(hidden)
    return _entropy(logits, labels)


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
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
