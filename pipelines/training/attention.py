"""Attention inside each example of a row and nowhere else: packed rows without a mask.

A mask over a row of many examples makes the attention compute, and throw away, what every example could see of every
other one. Here each example goes through the kernel by itself: the work is that of the unpacked examples.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cluster.errors import UserError

SEGMENTS = "sluice_segments"
"""The name under which transformers knows it."""

ENDS = "example_ends"
"""The keyword that carries the ends of the row's examples through the model."""


def attend_by_examples(model: Any, *, packed: bool) -> None:
    """Let a transformers model attend by examples, where that keeps them apart; where not, in transformers' own way.

    Raises UserError when neither does and several examples are to stand in a row (`packed`).
    """
    from transformers import AttentionInterface

    AttentionInterface.register(SEGMENTS, attend)
    usual, vocabulary = model.config._attn_implementation, model.get_input_embeddings().num_embeddings
    for way in (SEGMENTS, usual):
        model.set_attn_implementation(way)
        if keeps_apart(model, vocabulary):
            return
    if packed:
        raise UserError(
            f"models: {type(model).__name__} lets examples in one row see each other.",
            "Set train.packing: false and train.per_device_train_batch_size: 1.",
        )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of one row, [1, heads, length, width], by examples; [1, length, heads, width].

    Raises ValueError for what it does not know: a model that needs it must keep transformers' own way.
    """
    ends: Sequence[int] | None = options.get(ENDS)
    if ends is None or attention_mask is not None or options.get("softcap") is not None or len(query) != 1:
        raise ValueError("attention by examples needs one row, its ends, and neither mask nor soft cap")
    outputs, start = [], 0
    for end in ends:
        part = slice(start, end)
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                attn_mask=_band(end - start, sliding_window, query.device),
                dropout_p=dropout,
                scale=scaling,
                is_causal=not sliding_window or sliding_window >= end - start,
                enable_gqa=query.shape[1] != key.shape[1],
            ).transpose(1, 2)
        )
        start = end
    return torch.cat(outputs, dim=1), None


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """[length, length]: what a sliding window lets a place see; None where it sees all that came before."""
    if not window or window >= length:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


def keeps_apart(model: Any, vocabulary: int) -> bool:
    """Whether the model says of an example in a packed row what it says of it alone.

    Some architectures carry a state from place to place, whatever the positions are. Measured beside the same row as
    one single example: rounding is a small part of what the neighbour changes there.
    """
    first = torch.arange(1, 9) * 7 % vocabulary
    second = torch.arange(1, 12) * 5 % vocabulary
    row = torch.cat([first, second])
    try:
        alone = _logits(model, second, (11,))
        apart = (_logits(model, row, (8, 19))[8:] - alone).norm()
        joined = (_logits(model, row, (19,))[8:] - alone).norm()
    except (TypeError, ValueError):
        # The model does not carry the ends through, or wants a soft cap.
        return False
    return bool(apart <= 0.1 * joined)


@torch.no_grad()
def _logits(model: Any, tokens: Tensor, ends: Sequence[int]) -> Tensor:
    starts = (0, *ends[:-1])
    positions = torch.cat([torch.arange(end - start) for start, end in zip(starts, ends, strict=True)])
    device = next(model.parameters()).device
    output = model(
        input_ids=tokens[None].to(device),
        position_ids=positions[None].to(device),
        attention_mask=None,
        use_cache=False,
        **({ENDS: tuple(ends)} if model.config._attn_implementation == SEGMENTS else {}),
    )
    logits: Tensor = output.logits[0].float()
    return logits
