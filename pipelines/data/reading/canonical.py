"""From a row as it stands in a file to the canonical example: one function, whatever drives it."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from cluster.errors import UserError
from pipelines.data.example import Example, Turn, Unreadable, kind_of, make_example, shown
from pipelines.recipe_data import Dataset
from pipelines.section import nearest

Format = Literal["preference", "messages", "sharegpt", "prompt_completion", "alpaca"]

REQUIRED: dict[Format, tuple[str, ...]] = {
    # The prompt may stand in the answers' turns: hubs write pairs both ways.
    "preference": ("chosen", "rejected"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
"""The columns by which a format is known, in the order in which `auto` tries them."""

OPTIONAL: dict[Format, tuple[str, ...]] = {
    "preference": ("prompt", "system"),
    "messages": (),
    "sharegpt": ("system",),
    "prompt_completion": ("system",),
    "alpaca": ("input", "system"),
}

PROVENANCE = ("group", "source", "collector", "annotator", "created_at")

OUR_NAMES = tuple(dict.fromkeys((*sum(REQUIRED.values(), ()), *sum(OPTIONAL.values(), ()), *PROVENANCE)))

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def check_mapping(dataset: Dataset) -> None:
    """Raise UserError when `columns` maps to a name that Sluice does not have."""
    for name in dataset.columns:
        if name not in OUR_NAMES:
            raise UserError(
                f"dataset.columns: {name} is no column of Sluice{nearest(name, OUR_NAMES)}.",
                f"Map one of: {', '.join(OUR_NAMES)}.",
            )


def choose_format(columns: Collection[str], dataset: Dataset, file: str) -> Format:
    """The format of a file by its columns, or the recipe's once its columns are found.

    Raises UserError that names what is missing, what is there and the nearest.
    """
    for ours, theirs in dataset.columns.items():
        if theirs not in columns:
            raise UserError(
                f"{file}: dataset.columns maps {ours} to {theirs}, which is not there{nearest(theirs, columns)}; "
                f"the columns are {_listed(columns)}.",
                "Correct dataset.columns.",
            )
    for key, named in (("group_by", dataset.group_by), ("label", dataset.label)):
        if named and named not in columns:
            raise UserError(
                f"{file}: dataset.{key} names {named}, which is not there{nearest(named, columns)}; "
                f"the columns are {_listed(columns)}.",
                f"Correct dataset.{key}.",
            )
    taken = set(dataset.columns.values())
    known = (set(columns) - taken) | set(dataset.columns)
    candidates = list(REQUIRED) if dataset.format == "auto" else [dataset.format]
    for candidate in candidates:
        if all(name in known for name in REQUIRED[candidate]):
            return candidate
    hints = [
        f"{name} is missing{nearest(name, sorted(known))}"
        for candidate in candidates
        for name in REQUIRED[candidate]
        if name not in known and (dataset.format != "auto" or nearest(name, sorted(known)))
    ]
    wanted = "; or ".join(" and ".join(REQUIRED[candidate]) for candidate in candidates)
    raise UserError(
        f"{file}: the columns {_listed(columns)} hold no known conversation"
        + (f" ({'; '.join(hints)})" if hints else "")
        + f"; needed: {wanted}.",
        "Name the columns in dataset.columns, as in {prompt: question, completion: answer}.",
    )


def canonicalise(row: Mapping[str, Any], form: Format, dataset: Dataset, place: tuple[str, int]) -> Example:
    """The example in `row` of a file in format `form`; `place` is (file, position).

    Raises Unreadable with the reason when it holds none.
    """
    named = dict(row)
    renamed = {ours: named.pop(theirs) for ours, theirs in dataset.columns.items() if theirs in named}
    # A column that is not mapped but has the name of a mapped one is another column.
    named = {(f"{name} (column)" if name in dataset.columns else name): value for name, value in named.items()}
    named |= renamed
    turns, rejected = _preference(named) if form == "preference" else (_READERS[form](named), None)
    kept = (*REQUIRED[form], *OPTIONAL[form], *PROVENANCE)
    group = row.get(dataset.group_by) if dataset.group_by else named.get("group")
    # A column that happens to be called so is none: only the recipe says that it is the category.
    label = row.get(dataset.label) if dataset.label else None
    provenance = {name: named.get(name) for name in PROVENANCE} | {
        "group": group,
        "label": label,
        "rejected": rejected,
        "meta": {name: value for name, value in named.items() if name not in kept},
    }
    return make_example(turns, provenance, dataset.provenance, dataset.instruction, place)


def _messages(row: Mapping[str, Any]) -> list[Turn]:
    return _turns(_required(row, "messages"), "messages", "role", "content")


def _sharegpt(row: Mapping[str, Any]) -> list[Turn]:
    return _system(row) + _turns(_required(row, "conversations"), "conversations", "from", "value")


def _prompt_completion(row: Mapping[str, Any]) -> list[Turn]:
    prompt, completion = _required(row, "prompt"), _required(row, "completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = _turns(prompt, "prompt", "role", "content") + _turns(completion, "completion", "role", "content")
        return _system(row) + turns
    user, assistant = _text(prompt, "prompt"), _text(completion, "completion")
    return [*_system(row), _turn("user", user), _turn("assistant", assistant)]


def _preference(row: Mapping[str, Any]) -> tuple[list[Turn], str]:
    """The conversation that ends with the chosen answer, and the rejected one's text.

    Each of the three is text or turns; answers given as turns may repeat the prompt, which both must then share.
    """
    given = row.get("prompt")
    prompt = [] if given is None else _spoken(given, "prompt", "user")
    before, pair = [], []
    for name in ("chosen", "rejected"):
        turns = _spoken(_required(row, name), name, "assistant")
        if turns[-1]["role"] != "assistant":
            raise Unreadable("roles", f"{name} does not end with the assistant's answer")
        opening = turns[:-1]
        before.append(opening if opening[: len(prompt)] == prompt else prompt + opening)
        pair.append(turns[-1])
    if before[0] != before[1]:
        raise Unreadable("roles", "chosen and rejected answer different prompts")
    return [*_system(row), *before[0], pair[0]], pair[1]["content"]


def _spoken(value: Any, name: str, role: str) -> list[Turn]:
    """Turns as they are, or text as one turn of `role`."""
    if isinstance(value, list):
        return _turns(value, name, "role", "content")
    return [_turn(role, _text(value, name))]


def _alpaca(row: Mapping[str, Any]) -> list[Turn]:
    instruction = _text(_required(row, "instruction"), "instruction")
    given = row.get("input")
    more = "" if given is None else _text(given, "input", may_be_empty=True)
    prompt = f"{instruction}\n\n{more}" if more.strip() else instruction
    return [*_system(row), _turn("user", prompt), _turn("assistant", _text(_required(row, "output"), "output"))]


_READERS = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "prompt_completion": _prompt_completion,
    "alpaca": _alpaca,
}


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _system(row: Mapping[str, Any]) -> list[Turn]:
    given = row.get("system")
    text = "" if given is None else _text(given, "system", may_be_empty=True)
    return [_turn("system", text)] if text.strip() else []


def _required(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise Unreadable("missing", f"{name} is missing; the row has {_listed(row)}")
    return row[name]


def _text(value: Any, name: str, may_be_empty: bool = False) -> str:
    if value is None:
        raise Unreadable("empty", f"{name} is empty")
    if not isinstance(value, str):
        raise Unreadable("type", f"{name} is a {kind_of(value)} ({shown(value, 60)}), not text")
    if not value.strip() and not may_be_empty:
        raise Unreadable("empty", f"{name} is empty")
    return value


def _turns(value: Any, column: str, role_key: str, content_key: str) -> list[Turn]:
    """The turns in a list of objects, or in the JSON text of one (as a CSV cell holds it)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unreadable("type", f"{column} is text that holds no JSON list") from None
    if value is None or value == []:
        raise Unreadable("empty", f"{column} is empty")
    if not isinstance(value, list):
        raise Unreadable("type", f"{column} is a {kind_of(value)}, not a list of turns")
    turns = []
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict):
            raise Unreadable("type", f"turn {number} of {column} is a {kind_of(item)}, not an object")
        # Files of one format are often in the other's keys.
        role = item.get(role_key, item.get("role", item.get("from")))
        content = item.get(content_key, item.get("content", item.get("value")))
        if not isinstance(role, str):
            raise Unreadable("roles", f"turn {number} of {column} names no role ({role_key})")
        if item.get("tool_calls") or item.get("function_call"):
            raise Unreadable("roles", f"turn {number} of {column} calls a tool, which is not supported")
        turns.append(_turn(_ROLES.get(role.strip().lower(), role), _content(content, number, column)))
    return turns


def _content(value: Any, number: int, column: str) -> str:
    """A turn's text: as it is, or joined from parts that are all text."""
    if isinstance(value, list) and value and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
        value = "".join(_text(part.get("text"), f"a part of turn {number}") for part in value)
    return _text(value, f"turn {number} of {column}", may_be_empty=True)


def _listed(columns: Collection[str]) -> str:
    names = list(columns)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"
