"""One base model in memory, and any number of adapters over it."""

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.engines.adapters import read_adapter
from pipelines.engines.ends import end_tokens
from pipelines.engines.lora import LowRank, Rows, attach, detach
from pipelines.models.kind import MOST_SEQ2SEQ_TOKENS
from pipelines.models.load import load_model, load_tokenizer
from pipelines.models.precision import arithmetic


class SharedBase:
    """A base with its adapters; each row of a batch says which of them answers."""

    def __init__(self, folder: str | Path, adapters: Mapping[str, str | Path] | None = None, dtype: str = "auto"):
        """Load everything. Raises UserError for a model or an adapter that cannot be used."""
        # Ray sets one thread for an actor of one logical CPU; the cores are shared with nobody who computes.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.tokenizer = load_tokenizer(folder)
        self.end_tokens = end_tokens(folder, self.tokenizer)
        """Those that end an answer."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = arithmetic(dtype, self.device.type)
        self.model: nn.Module = load_model(folder, dtype).to(self.device)  # type: ignore[arg-type]
        self.config: Any = self.model.config
        self.model.requires_grad_(False)
        self.adapters: tuple[str, ...] = ()
        self._rows = Rows()
        for name, adapter in (adapters or {}).items():
            self.attach(name, self.read(adapter))

    @property
    def is_seq2seq(self) -> bool:
        """Whether it is an encoder-decoder."""
        return bool(self.config.is_encoder_decoder)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        if self.is_seq2seq:
            return MOST_SEQ2SEQ_TOKENS
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", 0) or 1_048_576)

    def release(self) -> None:
        """Give the memory back; nothing answers from then on."""
        self.model = nn.Module()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def answered_by(self, adapters: Sequence[str | None]) -> nn.Module:
        """The model, set so that row i of the next batches is answered by `adapters[i]` (None: the bare base)."""
        self._rows.assign(adapters, self.device)
        return self.model

    def read(self, folder: str | Path) -> dict[str, LowRank]:
        """What an adapter would add, by layer; nothing changes, and batches may run meanwhile. Raises UserError."""
        return read_adapter(self.model, folder)

    def attach(self, name: str, updates: Mapping[str, LowRank]) -> None:
        """Let rows name an adapter that was read; between two batches."""
        attach(self.model, self._rows, name, updates)
        self.adapters = (*self.adapters, name)

    def detach(self, name: str) -> None:
        """Forget an adapter, and its memory; between two batches of which the next has no row for it."""
        self.adapters = tuple(other for other in self.adapters if other != name)
        detach(self.model, name)
