"""Loss of given answers: what training minimised, on other examples."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipelines.engines.shared_base import SharedBase
from pipelines.models.seq2seq_tensors import Seq2SeqTensors, target_logits


def answer_losses(
    base: SharedBase,
    adapter: str | None,
    conversations: Sequence[tuple[Sequence[int], Sequence[bool]]],
    batch_tokens: int = 4096,
    on_done: Callable[[int], None] | None = None,
) -> list[tuple[float, int]]:
    """Summed negative log-likelihood in nats, and number, of the supervised tokens of each conversation.

    Conversations are (tokens, supervised). Batches hold about `batch_tokens`, padding included; `on_done` hears how
    many conversations are done.
    """
    results: list[tuple[float, int]] = [(0.0, 0)] * len(conversations)
    # Neighbours of one length share a batch: little padding.
    order = sorted(range(len(conversations)), key=lambda index: -len(conversations[index][0]))
    done = 0
    while done < len(order):
        longest = len(conversations[order[done]][0])
        chosen = order[done : done + max(1, batch_tokens // max(1, longest))]
        losses = _seq2seq_losses if base.is_seq2seq else _batch_losses
        found = losses(base, adapter, [conversations[index] for index in chosen])
        for index, result in zip(chosen, found, strict=True):
            results[index] = result
        done += len(chosen)
        if on_done:
            on_done(done)
    return results


def _batch_losses(
    base: SharedBase, adapter: str | None, conversations: Sequence[tuple[Sequence[int], Sequence[bool]]]
) -> list[tuple[float, int]]:
    width = max(len(tokens) for tokens, _ in conversations)
    tokens = torch.zeros(len(conversations), width, dtype=torch.long)
    mask, wanted = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    # Padded on the left: answers stand at the end, so the rows agree on where logits are needed.
    for row, (ids, supervised) in enumerate(conversations):
        start = width - len(ids)
        tokens[row, start:] = torch.tensor(ids)
        mask[row, start:] = 1
        wanted[row, start:] = torch.tensor(supervised)
        # Nothing comes before the first token that could predict it.
        wanted[row, start] = False
    if not wanted.any():
        return [(0.0, 0)] * len(conversations)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    first = int(wanted.any(dim=0).long().argmax())
    device = base.device
    model = base.answered_by([adapter] * len(conversations))
    with torch.inference_mode():
        output: Any = model(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=False,
            # The logits of all positions would be the largest tensor by far.
            logits_to_keep=width - first + 1,
        )
        predicted = output.logits[:, :-1][wanted[:, first:].to(device)].float()
        losses = torch.nn.functional.cross_entropy(predicted, tokens[wanted].to(device), reduction="none").tolist()
    return _by_row(losses, wanted)


def _seq2seq_losses(
    base: SharedBase, adapter: str | None, conversations: Sequence[tuple[Sequence[int], Sequence[bool]]]
) -> list[tuple[float, int]]:
    """The same for an encoder-decoder, whose supervised tokens are the decoder's."""
    rows = Seq2SeqTensors.of(conversations, base.device)
    model = base.answered_by([adapter] * len(conversations))
    with torch.inference_mode():
        logits = target_logits(model, rows.source, rows.source_mask, rows.target)[rows.target_mask].float()
        losses = torch.nn.functional.cross_entropy(logits, rows.target[rows.target_mask], reduction="none").tolist()
    return _by_row(losses, rows.target_mask)


def _by_row(losses: Sequence[float], wanted: torch.Tensor) -> list[tuple[float, int]]:
    results, place = [], 0
    for count in wanted.sum(-1).tolist():
        results.append((sum(losses[place : place + count]), int(count)))
        place += count
    return results
