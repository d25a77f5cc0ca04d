"""One base model in memory, and any number of adapters over it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.errors import UserError
from pipelines.data.chat import stop_tokens
from pipelines.engines.lora import Rows, replace_peft_layers
from pipelines.models.kind import MOST_SEQ2SEQ_TOKENS
from pipelines.models.load import load_model, load_tokenizer
from pipelines.models.precision import arithmetic


class SharedBase:
    """A base with its adapters; each row of a batch says which of them answers."""

    def __init__(self, folder: str | Path, adapters: Mapping[str, str | Path] | None = None, dtype: str = "auto"):
        """Load everything. Raises UserError for a model or an adapter that cannot be used."""
        self.tokenizer = load_tokenizer(folder)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = arithmetic(dtype, self.device.type)
        self.model: nn.Module = load_model(folder, dtype).to(self.device)  # type: ignore[arg-type]
        self.config: Any = self.model.config
        self.adapters = tuple(adapters or ())
        self._rows = Rows()
        if adapters:
            self._attach(adapters, getattr(torch, dtype))
        self.model.requires_grad_(False)

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

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        named = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = named if isinstance(named, list) else [named]
        return frozenset(int(token) for token in ends if token is not None) | stop_tokens(self.tokenizer)

    def answered_by(self, adapters: Sequence[str | None]) -> nn.Module:
        """The model, set so that row i of the next batches is answered by `adapters[i]` (None: the bare base)."""
        self._rows.assign(adapters, self.device)
        return self.model

    def _attach(self, adapters: Mapping[str, str | Path], dtype: torch.dtype) -> None:
        from peft import PeftModel

        peft_model: Any = None
        for name, folder in adapters.items():
            if not (Path(folder) / "adapter_model.safetensors").is_file():
                raise UserError(f"{folder}: no adapter_model.safetensors.", "An adapter must be saved as safetensors.")
            try:
                if peft_model is None:
                    peft_model = PeftModel.from_pretrained(
                        self.model, str(folder), adapter_name=name, autocast_adapter_dtype=False
                    )
                else:
                    peft_model.load_adapter(str(folder), adapter_name=name, autocast_adapter_dtype=False)
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).strip().splitlines()[0][:200]
                raise UserError(
                    f"{folder}: the adapter does not fit this base: {reason}", "Use its own base."
                ) from None
        peft_model.to(dtype).eval()
        self.model = peft_model.base_model.model
        replace_peft_layers(self.model, self._rows)
