"""Which tokens end an answer: the same for every engine."""

from pathlib import Path
from typing import Any

from pipelines.data.chat import stop_tokens


def end_tokens(folder: str | Path, tokenizer: Any) -> frozenset[int]:
    """Those that the model's files name, the tokenizer's own, and the one that its template closes a turn with."""
    from transformers import AutoConfig, GenerationConfig

    folder = Path(folder)
    if (folder / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(folder).eos_token_id
    else:
        named = getattr(AutoConfig.from_pretrained(folder, trust_remote_code=False), "eos_token_id", None)
    ends = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in ends if token is not None) | stop_tokens(tokenizer)
