"""The rows of an encoder-decoder that generate together; newcomers join and finished rows leave between two steps.

A prompt goes through the encoder once. What the decoder looks up of it, a key and a value for each layer and source
token, is kept beside the row's own keys and values until the row leaves.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import EncoderDecoderCache

from pipelines.engines.batch import Row, left_padded, padded_mask
from pipelines.engines.cache import RowsCache
from pipelines.engines.protocol import Token
from pipelines.engines.sampling import next_tokens
from pipelines.engines.shared_base import SharedBase


class Seq2SeqBatch:
    """Rows of sources and of answers so far; both are padded on the left to one width.

    Positions are relative and padding is masked: how far a row is from the others changes nothing for it.
    """

    def __init__(self, base: SharedBase) -> None:
        self.base = base
        self.rows: list[Row] = []
        self._layers = int(base.config.num_decoder_layers)
        self._start = int(base.config.decoder_start_token_id)
        self._clear()

    def _clear(self) -> None:
        self.rows = []
        self._answers: RowsCache | None = None
        self._sources: RowsCache | None = None
        self._cache: Any = None
        empty = torch.empty(0, 0, dtype=torch.long, device=self.base.device)
        self._answer_mask, self._source_mask = empty, empty
        self._last: list[int] = []

    def join(self, newcomers: Sequence[Row]) -> list[Token | None]:
        """Read the prompts of `newcomers` and put them after the rows that run; the first token of each.

        None instead of a token where the model's output is not a number.
        """
        tokens, source_mask = left_padded([row.prompt for row in newcomers], 0, self.base.device)
        answers, sources = RowsCache(self._layers), RowsCache(self._layers)
        cache = EncoderDecoderCache(answers, sources)
        answer_mask = source_mask.new_ones(len(newcomers), 1)
        first = self._forward(
            newcomers, [self._start] * len(newcomers), source_mask, answer_mask, cache, input_ids=tokens
        )
        if self._answers is None or self._sources is None:
            self._answers, self._sources, self._cache = answers, sources, cache
            self._source_mask, self._answer_mask = source_mask, answer_mask
        else:
            self._answers.join(answers)
            self._sources.join(sources)
            self._source_mask = _stacked(self._source_mask, source_mask)
            self._answer_mask = _stacked(self._answer_mask, answer_mask)
        self._last += [token.id if token else 0 for token in first]
        self.rows += newcomers
        return first

    def step(self) -> list[Token | None]:
        """The next token of every row."""
        self._answer_mask = torch.cat([self._answer_mask, self._answer_mask.new_ones(len(self.rows), 1)], dim=1)
        # The sources' keys and values are kept: of the encoder's states the shape alone is looked at.
        states = torch.zeros(1, device=self.base.device).expand(*self._source_mask.shape, 1)
        following = self._forward(
            self.rows, self._last, self._source_mask, self._answer_mask, self._cache, encoder_outputs=(states,)
        )
        self._last = [token.id if token else 0 for token in following]
        return following

    def keep(self, rows: list[int]) -> None:
        """Only these rows (by index) go on."""
        if len(rows) == len(self.rows):
            return
        if not rows or self._answers is None or self._sources is None:
            self._clear()
            return
        self.rows = [self.rows[index] for index in rows]
        self._last = [self._last[index] for index in rows]
        self._answer_mask, first = _kept(self._answer_mask, rows)
        self._answers.keep(rows, first)
        self._source_mask, first = _kept(self._source_mask, rows)
        self._sources.keep(rows, first)

    def _forward(
        self,
        rows: Sequence[Row],
        last: Sequence[int],
        source_mask: torch.Tensor,
        answer_mask: torch.Tensor,
        cache: Any,
        **source: Any,
    ) -> list[Token | None]:
        model = self.base.answered_by([row.adapter for row in rows])
        with torch.inference_mode():
            output: Any = model(
                attention_mask=source_mask,
                decoder_input_ids=torch.tensor(last, device=self.base.device).unsqueeze(1),
                decoder_attention_mask=answer_mask,
                past_key_values=cache,
                use_cache=True,
                **source,
            )
            return next_tokens(output.logits[:, -1], [row.sampler for row in rows])


def _stacked(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    width = max(first.shape[1], second.shape[1])
    return torch.cat([padded_mask(first, width), padded_mask(second, width)])


def _kept(mask: torch.Tensor, rows: list[int]) -> tuple[torch.Tensor, int]:
    """The rows of a mask without the columns that are padding for all of them, and how many those were."""
    mask = mask[torch.tensor(rows, device=mask.device)]
    first = int(mask.any(dim=0).long().argmax())
    return mask[:, first:], first
