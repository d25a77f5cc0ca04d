"""The canonical row: one conversation to learn from, with its provenance."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.recipe_data import Provenance

Turn = dict[str, str]
"""{"role": system, user or assistant, "content": text}."""

ROLES = ("system", "user", "assistant")

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Example:
    """One readable row. `messages` and `meta` are JSON texts, so that every table can hold them."""

    id: str
    """SHA-256 of the conversation as it was read, before the recipe's instruction: a new instruction
    must not turn old examples into new ones."""
    messages: str
    """[{"role": ..., "content": ...}, ...], the recipe's instruction included."""
    group: str | None
    source: str | None
    collector: str | None
    annotator: str | None
    created_at: str | None
    meta: str
    """{"declared": names of the columns that the recipe filled, "columns": the row's other columns}."""
    file: str
    position: int
    """Row or line in the file, from 1."""
    rejected: str | None = None
    """JSON text of the answer that was not preferred, where the row is a preference pair."""
    label: str | None = None
    """Its category, where `dataset.label` names a column."""

    @property
    def turns(self) -> list[Turn]:
        """The conversation as plain values."""
        turns: list[Turn] = json.loads(self.messages)
        return turns

    @property
    def by_a_person(self) -> bool:
        """Whether a named person wrote or approved the answers."""
        return bool(self.annotator) and not str(self.annotator).casefold().startswith("model:")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read, and why."""

    file: str
    position: int
    """Row or line in the file, from 1; 0 when it concerns the whole file."""
    kind: str
    """One word: syntax, encoding, type, missing, empty, roles, equal; `file` when the whole file is unreadable."""
    reason: str
    content: str
    """The row as text, cut at 2,000 characters."""


COLUMNS = (
    "id",
    "messages",
    "rejected",
    "group",
    "label",
    "source",
    "collector",
    "annotator",
    "created_at",
    "meta",
    "file",
    "position",
)
"""The fields in the order in which tables hold them."""


class Unreadable(Exception):
    """A row that is no example: its kind (see BadRow) and the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


def make_example(
    turns: list[Turn], row: dict[str, Any], declared: Provenance, instruction: str, place: tuple[str, int]
) -> Example:
    """The example of `turns`; `row` holds its provenance under our names and `meta`, the other columns.

    `row["rejected"]` is the answer that was not preferred, of a preference pair. Raises Unreadable when the turns
    are no conversation that teaches something, or the pair teaches no preference.
    """
    check_turns(turns)
    rejected: str | None = row.get("rejected")
    if rejected is not None:
        check_turns([*turns[:-1], {"role": "assistant", "content": rejected}])
        if rejected.strip() == turns[-1]["content"].strip():
            raise Unreadable("equal", "chosen and rejected are the same answer")
    provenance = {name: _text_or_none(row.get(name), name) for name in ("source", "collector", "annotator")}
    filled = [name for name, value in provenance.items() if value is None and getattr(declared, name)]
    provenance |= {name: getattr(declared, name) for name in filled}
    # Where nobody says more, the file is where it comes from.
    provenance["source"] = provenance["source"] or place[0]
    meta = {"declared": filled, "columns": row.get("meta") or {}}
    try:
        meta_text = json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str)
    except (TypeError, ValueError) as error:
        raise Unreadable("type", f"its other columns cannot be kept: {error}") from None
    created_at = row.get("created_at")
    example = Example(
        id=conversation_id(turns, rejected),
        messages=json.dumps(_instructed(turns, instruction), ensure_ascii=False),
        group=_text_or_none(row.get("group"), "group"),
        **provenance,
        created_at=None if created_at is None else str(created_at),
        meta=meta_text,
        file=place[0],
        position=place[1],
        rejected=None if rejected is None else json.dumps(rejected, ensure_ascii=False),
        label=_text_or_none(row.get("label"), "label"),
    )
    for name in COLUMNS:
        value = getattr(example, name)
        if isinstance(value, str) and (found := _UNSTORABLE.search(value)):
            raise Unreadable("encoding", f"{name} holds the character U+{ord(found[0]):04X}, which is no text")
    # JSON writes NUL as an escape, but the same six characters may be a column's own text: look at what comes back.
    if "\\u0000" in meta_text and any("\x00" in text for text in texts_in(json.loads(meta_text))):
        raise Unreadable("encoding", "a column holds the character U+0000, which is no text")
    return example


def conversation_id(turns: list[Turn], rejected: str | None = None) -> str:
    """SHA-256 of the roles and contents, and of the answer that was not preferred: equal conversations, equal id."""
    pairs = [[turn["role"], turn["content"]] for turn in turns]
    if rejected is not None:
        pairs.append(["rejected", rejected])
    # ASCII JSON can be encoded whatever the texts hold.
    return hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def check_turns(turns: list[Turn]) -> None:
    """Raise Unreadable unless: at most one system turn, first; then user and assistant by turns; an answer."""
    for number, turn in enumerate(turns, 1):
        if turn["role"] not in ROLES:
            raise Unreadable("roles", f"turn {number} has the role {turn['role']!r}; known: {', '.join(ROLES)}")
        if found := _UNSTORABLE.search(turn["content"]):
            raise Unreadable("encoding", f"turn {number} holds the character U+{ord(found[0]):04X}, which is no text")
        if not turn["content"].strip() and turn["role"] != "system":
            raise Unreadable("empty", f"turn {number} ({turn['role']}) is empty")
    spoken = [turn["role"] for turn in turns if turn["role"] != "system"]
    if "assistant" not in spoken:
        raise Unreadable("roles", "no assistant turn: nothing to learn from")
    if "system" in (turn["role"] for turn in turns[1:]):
        raise Unreadable("roles", "a system turn stands after the first turn")
    for number, role in enumerate(spoken):
        if role != ("user", "assistant")[number % 2]:
            expected = "user" if number % 2 == 0 else "assistant"
            raise Unreadable("roles", f"spoken turn {number + 1} is {role}'s where {expected}'s is due")


def text_of(turns: list[Turn], instruction: str = "") -> str:
    """What is compared between examples: the spoken turns, without what the recipe adds to every prompt.

    System turns are left out: they are mostly one constant text, which would make strangers look alike.
    """
    spoken = [turn for turn in turns if turn["role"] != "system"]
    if instruction and spoken:
        first = spoken[0]
        spoken[0] = first | {"content": first["content"].removeprefix(f"{instruction}\n\n")}
    return "\n".join(turn["content"] for turn in spoken)


def answers(turns: list[Turn]) -> list[str]:
    """The contents of the assistant's turns."""
    return [turn["content"] for turn in turns if turn["role"] == "assistant"]


def kind_of(value: Any) -> str:
    """A value's type as a person calls it."""
    names = {str: "text", bool: "true/false", int: "number", float: "number", list: "list", dict: "object"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def shown(value: Any, limit: int = 2000) -> str:
    """`value` as text that every database can hold, cut at `limit` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", cut)[:limit]


def _instructed(turns: list[Turn], instruction: str) -> list[Turn]:
    """The turns with the instruction before the first prompt; what follows in a conversation stands as it is."""
    first = next((number for number, turn in enumerate(turns) if turn["role"] == "user"), None)
    if not instruction or first is None:
        return turns
    turn = turns[first]
    return [*turns[:first], turn | {"content": f"{instruction}\n\n{turn['content']}"}, *turns[first + 1 :]]


def texts_in(value: Any) -> Iterator[str]:
    """Every text and number (see `digits_of`) in a JSON value, the names of its columns included, however deep."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case bool():
                pass
            case int() | float() as number:
                yield digits_of(number)
            case list(items):
                waiting += items
            case dict(columns):
                waiting += (*columns, *columns.values())


def digits_of(number: int | float) -> str:
    """A number as a person writes it: a card's number is the same one whether a table kept it as text or as a float."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _text_or_none(value: Any, name: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float | bool):
        return str(value).strip() or None
    raise Unreadable("type", f"{name} is a {kind_of(value)}, not text")
