"""Attention inside each example of a row and nowhere else: packed rows without a mask.

A mask over a row of many examples makes the attention compute, and throw away, what every example could see of every
other one. Here each example goes through the kernel by itself: the work is that of the unpacked examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cluster.errors import UserError

SEGMENTS = "sluice_segments"
"""The name under which transformers knows it."""

ENDS = "example_ends"
"""The keyword that carries the row's `Ends` through the model."""
SHORT = 512
"""Tokens up to which an example's attention weights are kept: 2 bytes for each pair of places and head."""


@dataclass(frozen=True, eq=False)
class Ends:
    """Where each example of a row ends.

    An object, not a tuple: torch.compile would make a graph of its own for each number of examples.
    """

    places: tuple[int, ...]


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


@torch.compiler.disable  # type: ignore[untyped-decorator]
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
    ends: Ends | None = options.get(ENDS)
    if ends is None or attention_mask is not None or options.get("softcap") is not None or len(query) != 1:
        raise ValueError("attention by examples needs one row, its ends, and neither mask nor soft cap")
    lengths = [end - start for start, end in pairwise((0, *ends.places))]
    if query.device.type == "cpu" and max(lengths) <= SHORT and not dropout and not sliding_window:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output: Tensor = ShortAttention.apply(query, key, value, lengths, scale)  # type: ignore[no-untyped-call]
        return output, None
    # Split, not sliced: the gradient of each slice would be a tensor of the whole row's size.
    parts = zip(*(torch.split(states, lengths, dim=2) for states in (query, key, value)), lengths, strict=True)
    outputs = [
        scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=_band(length, sliding_window, query.device),
            dropout_p=dropout,
            scale=scaling,
            is_causal=not sliding_window or sliding_window >= length,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
        for queries, keys, values, length in parts
    ]
    return torch.cat(outputs, dim=1), None


class ShortAttention(torch.autograd.Function):
    """Causal attention of short examples as plain matrix products: their weights fit into memory.

    The CPU's flash kernel takes more than twice as long for a hundred tokens, most of it in the backward pass. Heads
    that share keys stand below each other in one product.
    """

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float) -> Tensor:
        """[1, heads, length, width] to [1, length, heads, width]."""
        heads, total, width = query.shape[1:]
        shared = key.shape[1]
        output, kept, start = query.new_empty(total, heads, width), [], 0
        for length in lengths:
            part = slice(start, start + length)
            rows = query[0, :, part].reshape(shared, -1, width)
            scores = torch.bmm(rows, key[0, :, part].transpose(1, 2)).view(heads, length, length).float().mul_(scale)
            weights = scores.masked_fill_(_later(length), -torch.inf).softmax(-1).to(query.dtype)
            mixed = torch.bmm(weights.view(shared, -1, length), value[0, :, part])
            output[part] = mixed.view(heads, length, width).transpose(0, 1)
            kept.append(weights)
            start += length
        context.save_for_backward(query, key, value, *kept)
        context.scale = scale
        return output[None]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        query, key, value, *kept = context.saved_tensors
        heads, total, width = query.shape[1:]
        shared = key.shape[1]
        slopes = [query.new_empty(total, count, width) for count in (heads, shared, shared)]
        start = 0
        for weights in kept:
            length = weights.shape[-1]
            part = slice(start, start + length)
            outer = gradient[0, part].transpose(0, 1).reshape(shared, -1, width)
            rows = query[0, :, part].reshape(shared, -1, width)
            of_weights = torch.bmm(outer, value[0, :, part].transpose(1, 2)).view(heads, length, length).float()
            exact = weights.float()
            # Of softmax: p * (g - sum(p * g)).
            of_scores = of_weights.sub_((of_weights * exact).sum(-1, keepdim=True)).mul_(exact).mul_(context.scale)
            of_scores = of_scores.to(query.dtype).view(shared, -1, length)
            slopes[0][part] = torch.bmm(of_scores, key[0, :, part]).view(heads, length, width).transpose(0, 1)
            slopes[1][part] = torch.bmm(of_scores.transpose(1, 2), rows).transpose(0, 1)
            slopes[2][part] = torch.bmm(weights.view(shared, -1, length).transpose(1, 2), outer).transpose(0, 1)
            start += length
        of_query, of_key, of_value = (each.transpose(0, 1)[None] for each in slopes)
        return of_query, of_key, of_value, None, None


@lru_cache(maxsize=64)
def _later(length: int) -> Tensor:
    """[length, length]: True where a place comes after the one that looks."""
    return torch.ones(length, length, dtype=torch.bool).triu_(1)


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
        **({ENDS: Ends(tuple(ends))} if model.config._attn_implementation == SEGMENTS else {}),
    )
    logits: Tensor = output.logits[0].float()
    return logits
