"""The rows that generate together: newcomers join and finished rows leave between two steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipelines.engines.cache import RowsCache, cache_layers
from pipelines.engines.grammar import Grammar
from pipelines.engines.protocol import GenerationRequest, Token
from pipelines.engines.sampling import Sampler, next_tokens
from pipelines.engines.shared_base import SharedBase


@dataclass
class Row:
    """One prompt in the batch."""

    prompt: tuple[int, ...]
    adapter: str | None
    sampler: Sampler

    @classmethod
    def of(cls, request: GenerationRequest, grammar: Grammar | None) -> "Row":
        """What a request asks of the batch."""
        sampler = Sampler.of(request.temperature, request.top_p, request.seed)
        return cls(request.prompt, request.adapter, replace(sampler, grammar=grammar, logprobs=request.logprobs))


class Batch:
    """Rows with their keys and values, padded on the left to one width."""

    def __init__(self, base: SharedBase) -> None:
        self.base = base
        self.rows: list[Row] = []
        self._layers = cache_layers(base.config)
        self._pad = int(base.tokenizer.pad_token_id or 0)
        self._clear()

    def _clear(self) -> None:
        self.rows = []
        self._cache: RowsCache | None = None
        self._mask = torch.empty(0, 0, dtype=torch.long, device=self.base.device)
        self._positions = torch.empty(0, dtype=torch.long, device=self.base.device)
        self._last: list[int] = []

    def join(self, newcomers: Sequence[Row]) -> list[Token | None]:
        """Read the prompts of `newcomers` and put them after the rows that run; the first token of each.

        None instead of a token where the model's output is not a number.
        """
        tokens, mask = left_padded([row.prompt for row in newcomers], self._pad, self.base.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = RowsCache(self._layers)
        first = self._forward(newcomers, tokens, mask, positions, cache)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._cache.join(cache)
            longest = max(mask.shape[1], self._mask.shape[1])
            self._mask = torch.cat([padded_mask(self._mask, longest), padded_mask(mask, longest)])
        self._positions = torch.cat([self._positions, positions[:, -1] + 1])
        self._last += [token.id if token else 0 for token in first]
        self.rows += newcomers
        return first

    def step(self) -> list[Token | None]:
        """The next token of every row."""
        assert self._cache is not None
        tokens = torch.tensor(self._last, device=self.base.device).unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        following = self._forward(self.rows, tokens, self._mask, self._positions.unsqueeze(1), self._cache)
        self._positions += 1
        self._last = [token.id if token else 0 for token in following]
        return following

    def keep(self, rows: list[int]) -> None:
        """Only these rows (by index) go on."""
        if len(rows) == len(self.rows):
            return
        if not rows or self._cache is None:
            self._clear()
            return
        self.rows = [self.rows[index] for index in rows]
        self._last = [self._last[index] for index in rows]
        kept = torch.tensor(rows, device=self.base.device)
        self._positions = self._positions[kept]
        mask = self._mask[kept]
        # The longest row may have left: columns that are padding for all others go with it.
        first = int(mask.any(dim=0).long().argmax())
        self._mask = mask[:, first:]
        self._cache.keep(rows, first)

    def _forward(
        self,
        rows: Sequence[Row],
        tokens: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: RowsCache,
    ) -> list[Token | None]:
        model = self.base.answered_by([row.adapter for row in rows])
        with torch.inference_mode():
            output: Any = model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return next_tokens(output.logits[:, -1], [row.sampler for row in rows])


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, mask) of some prompts that all end at the same column."""
    width = max(map(len, prompts))
    tokens = torch.full((len(prompts), width), pad, device=device)
    mask = torch.zeros_like(tokens)
    for index, prompt in enumerate(prompts):
        tokens[index, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[index, width - len(prompt) :] = 1
    return tokens, mask


def padded_mask(mask: torch.Tensor, width: int) -> torch.Tensor:
    """The mask with columns of padding on the left, up to `width`."""
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
