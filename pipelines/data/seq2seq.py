"""Conversations as an encoder-decoder reads them: what was said before an answer is the source, the answer the target.

Such models have no chat template. The source of a single question is the question itself, as `dataset.instruction`
and the data wrote it. A system turn stands before it, with a blank line between. Of a longer conversation each turn
is a paragraph that begins with `User: ` or `Assistant: `. Source and target both close with the end token.

`source_text` is what training puts before an answer and what a server puts before it: there is no other.
"""

from collections.abc import Sequence
from typing import Any

from cluster.errors import UserError
from pipelines.data.chat import Encoded, Message, without_special

SPEAKERS = {"user": "User", "assistant": "Assistant"}


def source_text(turns: Sequence[Message]) -> str:
    """What the encoder reads of the turns before an answer."""
    spoken = sum(turn["role"] in SPEAKERS for turn in turns)
    return "\n\n".join(
        f"{SPEAKERS[turn['role']]}: {turn['content']}" if spoken > 1 and turn["role"] in SPEAKERS else turn["content"]
        for turn in turns
    )


def source_tokens(tokenizer: Any, turns: Sequence[Message]) -> list[int]:
    """Tokens of the turns before an answer, and the end token."""
    return _closed(tokenizer, source_text(without_special(tokenizer, turns)[0]))


def encode_seq2seq(tokenizer: Any, messages: Sequence[Message]) -> Encoded:
    """Source, then target, in one list: the supervised tokens are the target.

    The target is the conversation's last answer; earlier ones are part of the source. What follows the last answer
    is not read; without any answer nothing is supervised.
    """
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    clean, escaped = without_special(tokenizer, messages[: last + 1])
    source = _closed(tokenizer, source_text(clean[:last]))
    target = [token for answer in clean[last:] for token in _closed(tokenizer, answer["content"])]
    return Encoded(source + target, [False] * len(source) + [True] * len(target), bool(target), escaped)


def _closed(tokenizer: Any, text: str) -> list[int]:
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], end_token(tokenizer)]


def end_token(tokenizer: Any) -> int:
    """The token that closes source and target. Raises UserError where the tokenizer names none."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"models: {tokenizer.name_or_path} names no end token, and an encoder-decoder's answers end with it.",
            "Add `eos_token` to its tokenizer_config.json (T5's is </s>).",
        )
    return int(tokenizer.eos_token_id)


def is_seq2seq(tokenizer: Any) -> bool:
    """Whether the tokenizer belongs to an encoder-decoder; `load_tokenizer` notes it."""
    return bool(getattr(tokenizer, "is_encoder_decoder", False))


def has_earlier_answers(messages: Sequence[Message]) -> bool:
    """Whether there are answers that `encode_seq2seq` puts into the source."""
    return sum(message["role"] == "assistant" for message in messages) > 1
