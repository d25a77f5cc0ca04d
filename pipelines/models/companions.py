"""What stands beside weights so that they can be used: tokenizer, chat template, generation defaults, our record.

The template that trains is byte for byte the one that serves: its SHA-256 is recorded when training begins, and a
tokenizer with another one is refused wherever the model is loaded to answer.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines.data.chat import stop_tokens
from pipelines.fingerprint import short
from pipelines.models.files import RECORD
from pipelines.models.load import load_tokenizer, quiet_transformers

if TYPE_CHECKING:
    from transformers import GenerationConfig

GENERATION_CONFIG = "generation_config.json"


def template_hash(tokenizer: Any) -> str:
    """SHA-256 of the chat template that the tokenizer renders conversations with; empty where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    # The one that counts where a tokenizer brings several.
    return hashlib.sha256(tokenizer.get_chat_template().encode()).hexdigest()


def checked_tokenizer(folder: str | Path, expected: str) -> Any:
    """The tokenizer in `folder`. Raises UserError unless its chat template is the one with the hash `expected`.

    An empty `expected` was recorded by nobody, and nothing is compared.
    """
    tokenizer = load_tokenizer(folder)
    found = template_hash(tokenizer)
    if expected and found != expected:
        raise UserError(
            f"{folder}: its chat template ({short(found) or 'none'}) is not the one that the model was trained with "
            f"({short(expected)}).",
            "Put the template back as it was (a trained model's own folder has a copy), or train anew.",
        )
    return tokenizer


def generation_defaults(base_folder: Path, tokenizer: Any) -> "GenerationConfig":
    """The base's own defaults, ending at every token that training taught to end with, and at the base's own ends."""
    from transformers import AutoConfig, GenerationConfig

    with quiet_transformers():
        if (base_folder / GENERATION_CONFIG).is_file():
            config = GenerationConfig.from_pretrained(base_folder)
        else:
            config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base_folder))
    named = config.eos_token_id
    own = set(named) if isinstance(named, list | tuple) else {named}
    # A model of another kind than chat has no turns to close: its texts end as its tokenizer ends them.
    taught = stop_tokens(tokenizer) if template_hash(tokenizer) else {tokenizer.eos_token_id}
    config.eos_token_id = sorted((own | taught) - {None})
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return config


def write_companions(target: Path, tokenizer: Any, base_folder: Path, record: dict[str, Any]) -> None:
    """Write tokenizer, template, generation defaults and the record beside the weights in `target`."""
    with quiet_transformers():
        tokenizer.save_pretrained(target)
        # Not save_pretrained: it refuses what some bases publish, such as a temperature without sampling.
        generation_defaults(base_folder, tokenizer).to_json_file(target / GENERATION_CONFIG, use_diff=True)
    note = record | {"chat_template": template_hash(tokenizer)}
    (target / RECORD).write_text(json.dumps(note, indent=2), encoding="utf-8")
