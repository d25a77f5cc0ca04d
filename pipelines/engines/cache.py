"""Keys and values of the rows of a batch, in memory that grows by blocks.

Rows are padded on the left, so that all end at the same column and a sliding window's mask, which counts
columns, stays right. transformers' DynamicCache copies everything at each step; here a step writes one column.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from cluster.errors import UserError

BLOCK = 64
"""Columns that are added when there is no room."""


class RowsLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, (rows, heads, columns, width), with room to the right."""

    room_keys: torch.Tensor
    room_values: torch.Tensor
    length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Called by transformers with the first states."""
        super().lazy_initialization(key_states, value_states)
        self.room_keys, self.room_values = key_states[:, :, :0], value_states[:, :, :0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of the new columns; all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.room_keys.shape[-2]:
            self.room_keys = _with_room(self.room_keys[:, :, : self.length], end + BLOCK)
            self.room_values = _with_room(self.room_values[:, :, : self.length], end + BLOCK)
        self.room_keys[:, :, self.length : end] = key_states
        self.room_values[:, :, self.length : end] = value_states
        return self._show(end)

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def keep(self, rows: torch.Tensor, first_column: int) -> None:
        """Only these rows, without the columns before `first_column`."""
        length = self.length - first_column
        self.room_keys = _with_room(self.room_keys[rows, :, first_column : self.length], length + BLOCK)
        self.room_values = _with_room(self.room_values[rows, :, first_column : self.length], length + BLOCK)
        self._show(length)

    def join(self, other: "RowsLayer") -> None:
        """Add the rows of `other`; the shorter of the two is padded on the left."""
        length = max(self.length, other.length)
        self.room_keys = _joined(self.room_keys[:, :, : self.length], other.room_keys[:, :, : other.length], length)
        self.room_values = _joined(
            self.room_values[:, :, : self.length], other.room_values[:, :, : other.length], length
        )
        self._show(length)

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.length = length
        shown = self.room_keys[:, :, :length], self.room_values[:, :, :length]
        self.keys, self.values = shown
        return shown


class RowsCache(Cache):
    """A layer each; what transformers' models expect of a cache."""

    def __init__(self, layers: int) -> None:
        self.rows_layers = [RowsLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]
        super().__init__(layers=list(self.rows_layers))

    def keep(self, rows: list[int], first_column: int) -> None:
        """Only these rows, without the columns before `first_column`."""
        index = torch.tensor(rows, device=self.rows_layers[0].room_keys.device)
        for layer in self.rows_layers:
            layer.keep(index, first_column)

    def join(self, other: "RowsCache") -> None:
        """Add the rows of `other`."""
        for mine, theirs in zip(self.rows_layers, other.rows_layers, strict=True):
            mine.join(theirs)


def cache_layers(config: Any) -> int:
    """How many layers the model's cache has. Raises UserError for models whose state is not keys and values."""
    layers = DynamicCache(config=config).layers
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise UserError(
            f"The engine cannot serve {config.model_type}: its layers keep more than attention keys and values.",
            "Choose a base with plain attention layers, such as Llama, Mistral, Qwen or Gemma.",
        )
    return len(layers)


def _with_room(states: torch.Tensor, columns: int) -> torch.Tensor:
    room = states.new_empty(*states.shape[:2], columns, states.shape[3])
    room[:, :, : states.shape[2]] = states
    return room


def _joined(first: torch.Tensor, second: torch.Tensor, length: int) -> torch.Tensor:
    rows, heads, _, width = first.shape
    # Zeros, not whatever stood in memory: a masked column still enters the softmax's product, and 0 * nan is nan.
    room = first.new_zeros(rows + second.shape[0], heads, length + BLOCK, width)
    room[:rows, :, length - first.shape[2] : length] = first
    room[rows:, :, length - second.shape[2] : length] = second
    return room
