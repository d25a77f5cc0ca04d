"""What kind of language model a folder holds: its configuration says it, and no recipe needs to."""

from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.models.files import read_json

ENCODER_DECODERS = ("t5", "mt5", "umt5")
"""Model types that are trained and served. In their decoders positions are relative: rows that began at different
steps can share a batch, which learned positions (BART's, say) do not allow."""

MOST_SEQ2SEQ_TOKENS = 8192
"""Tokens of source and target together. Relative positions have no end, but their biases are a number for each head
and each two tokens: at this length 2 GB for 8 heads in 32 bits."""


def is_encoder_decoder(folder: str | Path) -> bool:
    """Whether the model in `folder` reads a prompt with an encoder and answers with a decoder."""
    file = Path(folder) / "config.json"
    config = read_json(file) if file.is_file() else {}
    return bool(config.get("is_encoder_decoder", config.get("model_type") in ENCODER_DECODERS))


def check_kind(folder: str | Path) -> None:
    """Raise UserError for an encoder-decoder that the engine could not answer with."""
    config = read_json(Path(folder) / "config.json")
    if not is_encoder_decoder(folder):
        return
    if config.get("model_type") not in ENCODER_DECODERS:
        raise UserError(
            f"{folder}: encoder-decoders of the type {config.get('model_type')} are not served, so they are not "
            "trained either.",
            f"Choose one of the T5 family ({', '.join(ENCODER_DECODERS)}; Flan-T5 is t5), or a decoder-only base.",
        )
    if not isinstance(config.get("decoder_start_token_id"), int):
        raise UserError(
            f"{folder}: config.json names no decoder_start_token_id, so nothing says how an answer begins.",
            "Add the one that the model was pretrained with (T5's is its padding token, 0).",
        )


def auto_class(folder: str | Path) -> Any:
    """The class of transformers that loads the model in `folder`."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if is_encoder_decoder(folder) else AutoModelForCausalLM
