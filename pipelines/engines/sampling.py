"""The next token of each row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampler:
    """How one row chooses."""

    temperature: float
    top_p: float
    generator: torch.Generator | None
    """Its own stream of random numbers: who shares the batch changes nothing."""

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


def next_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """A token for each row of `logits` (rows, vocabulary); None where the logits are not numbers."""
    best, greedy = logits.max(dim=-1)
    numbers = torch.isfinite(best).tolist()
    tokens: list[int | None] = [token if good else None for token, good in zip(greedy.tolist(), numbers, strict=True)]
    for row, sampler in enumerate(samplers):
        if sampler.generator is not None and tokens[row] is not None:
            tokens[row] = _sample(logits[row].float().cpu(), sampler)
    return tokens


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
