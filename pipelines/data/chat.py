"""Conversations to tokens: the template that trains is the one that serves.

The text is cut where the assistant's answers begin and end, and each piece is tokenized by itself:
what training puts before an answer is token for token what a server puts before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.errors import UserError

ENCODING_VERSION = 1
"""Part of the fingerprint of stored bins: raise it when the same text gives other tokens."""

ROLES = ("system", "user", "assistant")

Message = dict[str, str]

WORD_JOINER = "\u2060"
"""Invisible; put inside the text of a special token, it keeps the tokenizer from reading it as one."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens."""

    tokens: list[int]
    supervised: list[bool]
    """Whether the model learns to say the token at this place (the assistant's words and their end)."""
    ends: bool
    """Whether every answer is closed by a supervised special token: the model learns to stop."""
    escaped: int
    """Special tokens that stood in the text and were made plain text."""


def encode(tokenizer: Any, messages: Sequence[Message]) -> Encoded:
    """Tokens and mask of a conversation; the assistant's answers and their end tokens are supervised.

    An encoder-decoder's tokenizer gives source and target (see `seq2seq.py`). Raises UserError when another has no chat
    template, or one that renders a conversation's beginning differently once it goes on (then no span could be
    trusted).
    """
    from pipelines.data.seq2seq import encode_seq2seq, is_seq2seq

    if is_seq2seq(tokenizer):
        return encode_seq2seq(tokenizer, messages)
    clean, escaped = without_special(tokenizer, messages)
    full = render(tokenizer, clean)
    special = _special_ids(tokenizer)
    tokens: list[int] = []
    supervised: list[bool] = []
    done, ends = 0, True
    for position in _answers(clean):
        prompt = render(tokenizer, clean[:position], answer_follows=True)
        answered = render(tokenizer, clean[: position + 1])
        if not (answered.startswith(prompt) and full.startswith(answered) and prompt.startswith(full[:done])):
            raise UserError(
                "models: the chat template renders the beginning of a conversation differently once it goes on, "
                "so the assistant's words cannot be told from the rest.",
                "Use a base whose template only appends, or split conversations into single turns.",
            )
        before = tokenize(tokenizer, full[done : len(prompt)])
        answer = tokenize(tokenizer, full[len(prompt) : len(answered)])
        # Content has no special tokens (see above), so the first one is the turn's end.
        end = next((i for i, token in enumerate(answer) if token in special), None)
        ends = ends and end is not None
        taught = len(answer) if end is None else end + 1
        tokens += before + answer
        supervised += [False] * len(before) + [True] * taught + [False] * (len(answer) - taught)
        done = len(answered)
    rest = tokenize(tokenizer, full[done:])
    return Encoded(tokens + rest, supervised + [False] * len(rest), ends and any(supervised), escaped)


def prompt_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Tokens up to where the assistant's last answer begins: what `encode` puts before that answer.

    A conversation that ends with the user is taken whole.
    """
    from pipelines.data.seq2seq import is_seq2seq, source_tokens

    upto = len(messages) - (bool(messages) and messages[-1]["role"] == "assistant")
    if is_seq2seq(tokenizer):
        return source_tokens(tokenizer, messages[:upto])
    clean, _ = without_special(tokenizer, messages[:upto])
    prompt = render(tokenizer, clean, answer_follows=True)
    answers = _answers(clean)
    if not answers:
        return tokenize(tokenizer, prompt)
    earlier = clean[: answers[-1] + 1]
    return encode(tokenizer, earlier).tokens + tokenize(tokenizer, prompt[len(render(tokenizer, earlier)) :])


def continuation_tokens(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text that is continued as it is, without a template; special tokens in it are plain text.

    What the tokenizer puts before every text stands there; an end that it would add is left out. Of an
    encoder-decoder the text is the source.
    """
    from pipelines.data.seq2seq import is_seq2seq, source_tokens

    if is_seq2seq(tokenizer):
        return source_tokens(tokenizer, [{"role": "user", "content": text}])
    tokens = list(tokenizer(escape(tokenizer, text)[0])["input_ids"])
    return tokens[:-1] if tokens and tokens[-1] == tokenizer.eos_token_id else tokens


def stop_tokens(tokenizer: Any) -> set[int]:
    """Ids at which an answer ends: the tokenizer's own end, and what its template closes a turn with."""
    probe = encode(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    taught = [token for token, wanted in zip(probe.tokens, probe.supervised, strict=True) if wanted]
    own = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    return own | ({taught[-1]} if probe.ends else set())


def escape(tokenizer: Any, text: str) -> tuple[str, int]:
    """The text with its special tokens made plain text, and how many there were."""
    return make_plain(special_names(tokenizer), text)


def make_plain(names: Iterable[str], text: str) -> tuple[str, int]:
    """The text in which none of `names` can be read any more, longest first, and how many there were."""
    count = 0
    for name in names:
        if name in text:
            count += text.count(name)
            text = text.replace(name, name[0] + WORD_JOINER + name[1:])
    return text, count


def _answers(messages: Sequence[Message]) -> list[int]:
    """Places of the assistant's answers. What it says before anybody asked answers nothing: that is read only."""
    asked = next((place for place, message in enumerate(messages) if message["role"] == "user"), len(messages))
    return [place for place, message in enumerate(messages) if place > asked and message["role"] == "assistant"]


def without_special(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[Message], int]:
    """The messages with special tokens made plain text, and how many there were. Raises UserError for other roles."""
    clean, escaped = [], 0
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(
                f"A message has the role {message['role']!r}.", f"Roles are {', '.join(ROLES)}: map the others."
            )
        content, count = escape(tokenizer, message["content"])
        clean.append({"role": message["role"], "content": content})
        escaped += count
    return clean, escaped


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    answer_follows: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The conversation as the base's chat template puts it. Raises UserError where there is none, or it refuses it."""
    from jinja2.exceptions import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"models: {getattr(tokenizer, 'name_or_path', 'the base')} has no chat template.",
            "Start from an instruction-tuned base (its name often ends with -Instruct or -it), or add a "
            "chat_template.jinja to its folder.",
        )
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=answer_follows
        )
    except (TemplateError, TypeError, ValueError, AttributeError, LookupError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"models: the chat template refuses the turns {roles}: {error}",
            "Give the turns in the order that this base expects (often: no system turn, user and assistant in turn).",
        ) from None
    return str(text)


def tokenize(tokenizer: Any, text: str) -> list[int]:
    """Tokens of what a template has written."""
    # The template writes the beginning-of-text token itself where there is one: adding it would double it.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def special_names(tokenizer: Any) -> list[str]:
    """The texts that the tokenizer reads as special tokens, longest first."""
    named = {str(token) for token in tokenizer.all_special_tokens}
    added = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    # Longest first: one may stand inside another.
    return sorted((name for name in named | added if len(name) > 1), key=lambda name: (-len(name), name))


def _special_ids(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
