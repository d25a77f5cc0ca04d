"""Loss of given answers: what training minimised, on other examples."""

from collections.abc import Callable, Sequence

import torch

from pipelines.engines.shared_base import SharedBase


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
        found = _batch_losses(base, adapter, [conversations[index] for index in chosen])
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
    for row, (ids, supervised) in enumerate(conversations):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
        wanted[row, : len(ids)] = torch.tensor(supervised)
    # Nothing comes before the first token that could predict it.
    wanted[:, 0] = False
    tokens, mask, wanted = (tensor.to(base.device) for tensor in (tokens, mask, wanted))
    with torch.inference_mode(), base.answering([adapter] * len(conversations)) as model:
        # The logits of all positions would be the largest tensor by far: only the supervised ones are made.
        hidden = model.get_submodule("model")(input_ids=tokens, attention_mask=mask).last_hidden_state
        logits = model.get_submodule("lm_head")(hidden[:, :-1][wanted[:, 1:]])
        losses = torch.nn.functional.cross_entropy(logits.float(), tokens[:, 1:][wanted[:, 1:]], reduction="none")
    counts = wanted.sum(-1).tolist()
    return [(float(part.sum()), count) for part, count in zip(losses.split(counts), counts, strict=True)]
