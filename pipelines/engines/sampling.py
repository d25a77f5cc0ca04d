"""The next token of each row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines.engines.grammar import Grammar
from pipelines.engines.protocol import Token


@dataclass(frozen=True)
class Sampler:
    """How one row chooses."""

    temperature: float
    top_p: float
    generator: torch.Generator | None
    """Its own stream of random numbers: who shares the batch changes nothing."""
    grammar: Grammar | None = None
    """What may come next, where not everything may."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told with their probabilities; None: nothing is."""

    @classmethod
    def of(cls, temperature: float, top_p: float, seed: int | None) -> "Sampler":
        """A sampler; greedy at temperature 0."""
        if temperature <= 0:
            return cls(0.0, 1.0, None)
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        return cls(temperature, top_p, generator)


def next_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Token | None]:
    """A token for each row of `logits` (rows, vocabulary).

    None where the logits are not numbers, and where the vocabulary has nothing that a row's grammar allows.
    """
    best, greedy = logits.max(dim=-1)
    numbers = torch.isfinite(best).tolist()
    return [
        _chosen(logits[row], likeliest, sampler) if numbers[row] else None
        for row, (sampler, likeliest) in enumerate(zip(samplers, greedy.tolist(), strict=True))
    ]


def _chosen(logits: torch.Tensor, likeliest: int, sampler: Sampler) -> Token | None:
    allowed = logits
    if sampler.grammar is not None:
        allowed = sampler.grammar.allowed(logits)
        likeliest = int(allowed.argmax())
        if not torch.isfinite(allowed[likeliest]):
            return None
    token = likeliest if sampler.generator is None else _sample(allowed.float().cpu(), sampler)
    if sampler.grammar is not None and not sampler.grammar.accept(token):
        return None
    return Token(token) if sampler.logprobs is None else _told(logits, token, sampler.logprobs)


def _told(logits: torch.Tensor, token: int, count: int) -> Token:
    found = torch.log_softmax(logits.float(), dim=-1)
    values, ids = found.topk(count)
    return Token(token, float(found[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _sample(logits: torch.Tensor, sampler: Sampler) -> int:
    """Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751): the fewest tokens that hold `top_p`."""
    # Shifted before the division: a tiny temperature must not overflow.
    probabilities = torch.softmax((logits - logits.max()) / sampler.temperature, dim=-1)
    if sampler.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= sampler.top_p
        outside[0] = False
        probabilities[order[outside]] = 0
    return int(torch.multinomial(probabilities, 1, generator=sampler.generator))
