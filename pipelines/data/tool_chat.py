"""Conversations in which a model may call tools, as its own chat template puts them.

Nothing here trains on such conversations: what the template makes of tools is passed on, and checked to be there.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.errors import UserError
from pipelines.data.chat import make_plain, render, special_names, tokenize


def has_tools(messages: Sequence[dict[str, Any]]) -> bool:
    """Whether one of the messages is a call of a tool, or its result."""
    return any(message["role"] == "tool" or message.get("tool_calls") for message in messages)


def tool_prompt_tokens(
    tokenizer: Any, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[int]:
    """Tokens of a conversation up to where the assistant's next answer begins.

    `messages` and `tools` are in OpenAI's shape. Special tokens in them are plain text. Raises UserError for an
    encoder-decoder, and for a template that leaves out tools, calls or results.
    """
    from pipelines.data.seq2seq import is_seq2seq

    if is_seq2seq(tokenizer):
        raise UserError("An encoder-decoder is told of no tools.", "Ask without `tools`.")
    special, marks = special_names(tokenizer), _marks(tokenizer)
    everything = "\0".join(_texts([*messages, *tools]))
    # Some tokenizers have thousands; next to none of them stands in a conversation.
    marks = [mark for mark in marks if mark in everything]
    told: list[dict[str, Any]] = _plain(marks, list(tools))
    turns: list[dict[str, Any]] = []
    for message in messages:
        plain = _plain(marks, _parsed(message))
        if message["role"] == "assistant":
            # Templates look in earlier answers for marks of the model's own, such as those around its reasoning.
            plain["content"] = make_plain(special, message["content"])[0]
        turns.append(plain)

    def rendered(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        # Templates ask whether there are any, and some take an empty list for some.
        return render(tokenizer, messages, answer_follows=True, tools=tools or None)

    text = rendered(turns, told)
    without = {
        "tools": (turns, []),
        "calls of tools": ([_without_calls(one) for one in turns], told),
        "results of tools": ([_with_another_result(one) for one in turns], told),
    }
    for what, changed in without.items():
        if changed != (turns, told) and _same(rendered, changed, text):
            raise UserError(
                f"models: the base's chat template leaves out {what}, so the model would not know of them.",
                "Ask without them, or start from a base whose template has them.",
            )
    return tokenize(tokenizer, text)


def _same(rendered: Any, changed: Any, text: str) -> bool:
    try:
        return bool(rendered(*changed) == text)
    except UserError:
        # It looks at them: without them it refuses the rest.
        return False


def _without_calls(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "tool_calls"}


def _with_another_result(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"content": message["content"] + "x"} if message["role"] == "tool" else message


def _texts(value: Any) -> Iterator[str]:
    """Every text in it, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(one)


def _parsed(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as values: templates write JSON of them themselves."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return message | ({"tool_calls": calls} if calls else {})


def _marks(tokenizer: Any) -> list[str]:
    """What must not be read in what others wrote: added tokens, and what the template puts around calls and results.

    Longest first: one may stand inside another.
    """
    added = {str(token.content) for token in tokenizer.added_tokens_decoder.values()}
    tags = set(re.findall(r"</?tool\w*>", str(getattr(tokenizer, "chat_template", ""))))
    marks = {*special_names(tokenizer), *(mark for mark in added if len(mark) > 1 and mark.strip()), *tags}
    return sorted(marks, key=lambda mark: (-len(mark), mark))


def _plain(names: Sequence[str], value: Any) -> Any:
    if isinstance(value, str):
        return make_plain(names, value)[0]
    if isinstance(value, list):
        return [_plain(names, one) for one in value]
    if isinstance(value, dict):
        return {_plain(names, name): _plain(names, one) for name, one in value.items()}
    return value
