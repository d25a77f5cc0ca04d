"""What is known of a row from the row alone: keys, lengths, tokens, sketches, scores, private data; as columns."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from pipelines.data.example import Turn, answers, text_of, texts_in

if TYPE_CHECKING:
    import pyarrow as pa

PROFILE_VERSION = 3
"""Enters a corpus's key: raise it when the same row gets other columns, whichever part makes them."""

TOLD = ("group", "label", "source", "collector", "annotator", "created_at")
"""Columns that say something of a row, and may say who somebody is."""

_CHAT_MARKS = re.compile(r"<\|[\w.-]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>")
"""What chat templates of well-known models put between turns."""


@dataclass(frozen=True)
class ProfileSettings:
    """What the columns depend on, beside the row."""

    threshold: float
    """Similarity from which two texts are near-duplicates: the sketches' bands are made for it."""
    instruction: str
    """What the recipe put before every prompt: not compared, not looked at."""
    private: tuple[str, ...]
    """Kinds of personal data and secrets that are looked for."""
    tokenizer: str | None
    """Folder of the tokenizer; None: tokens are not counted."""

    def identity(self) -> dict[str, Any]:
        """Plain values for a fingerprint: all but the tokenizer's place."""
        values = asdict(self)
        del values["tokenizer"]
        return values


def profile(table: "pa.Table", wanted: ProfileSettings) -> "pa.Table":
    """The table of `read.table_of` with the columns of its good rows, these first; they are null for the bad ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    bad = table["id"].null_count
    good = len(table) - bad
    if bad:
        # Whoever hands tables on may have joined some: good rows, bad ones, good ones again.
        is_good = table["id"].is_valid()
        table = pa.concat_tables([table.filter(is_good), table.filter(pc.invert(is_good))])
    turns: list[list[Turn]] = [json.loads(text) for text in table["messages"].slice(0, good).to_pylist()]
    rejected = [None if text is None else json.loads(text) for text in table["rejected"].slice(0, good).to_pylist()]
    columns = columns_of(turns, rejected, wanted)
    columns["private"] = _private(turns, rejected, table.slice(0, good), wanted)
    for name, column in columns.items():
        if bad:
            column = pa.concat_arrays([column, pa.nulls(bad, column.type)])
        table = table.append_column(name, column)
    return table


def columns_of(
    turns: Sequence[list[Turn]], rejected: Sequence[str | None], wanted: ProfileSettings
) -> "dict[str, pa.Array]":
    """Name -> column, of conversations as plain values."""
    import pyarrow as pa

    from pipelines.data.anomaly.row_scores import row_scores

    # Here, for their patterns take a tenth of a second to compile, which `sluice --help` need not wait for.
    from pipelines.data.similarity.duplicates import normalise
    from pipelines.data.similarity.sketches import sketch_columns

    normals = [normalise(text_of(each, wanted.instruction)) for each in turns]
    prompts = [prompt_of(each, wanted.instruction) for each in turns]
    answered = [answer_of(each) for each in turns]
    tokens, special = _tokens(turns, wanted)
    columns = {
        "text_key": _keys(normals),
        "prompt_key": pa.array([prompt_key(text) for text in prompts], pa.binary(16)),
        "answer_key": _keys(answered),
        "answer_hashes": _answer_hashes(turns),
        "prompt_words": pa.array([len(text.split()) for text in prompts], pa.int32()),
        "answer_words": pa.array([len(text.split()) for text in answered], pa.int32()),
        "turns": pa.array([len(each) for each in turns], pa.int16()),
        "roles": pa.array([",".join(turn["role"] for turn in each) for each in turns], pa.string()),
        "tokens": tokens,
        "special": special,
    }
    columns |= sketch_columns(normals, wanted.threshold)
    return columns | row_scores(prompts, answered)


def _private(
    turns: Sequence[list[Turn]], rejected: Sequence[str | None], table: "pa.Table", wanted: ProfileSettings
) -> "pa.Array":
    """What is private in the turns and in all other columns, which travel with them."""
    from pipelines.data.privacy.private import private_column

    texts = [_own_texts(each, other, wanted.instruction) for each, other in zip(turns, rejected, strict=True)]
    for own, meta in zip(texts, table["meta"].to_pylist(), strict=True):
        own += texts_in(json.loads(meta)["columns"])
    for column in TOLD:
        _add_private_cells(texts, table[column].to_pylist(), column, wanted.private)
    return private_column(texts, wanted.private)


def _add_private_cells(
    texts: list[list[str]], cells: Sequence[str | None], column: str, kinds: tuple[str, ...]
) -> None:
    """Add to each row's texts its cell, where that holds something private: the same few cells stand in most rows."""
    from pipelines.data.privacy.private import find_private, kinds_in

    looked_for = kinds_in(column, kinds)
    private = {cell: bool(find_private(cell, looked_for)) for cell in set(cells) if cell}
    for own, cell in zip(texts, cells, strict=True):
        if cell and private[cell]:
            own.append(cell)


def prompt_of(turns: Sequence[Turn], instruction: str = "") -> str:
    """What stands before the first answer, without the recipe's instruction where that is given."""
    first = next(number for number, turn in enumerate(turns) if turn["role"] == "assistant")
    prefix = f"{instruction}\n\n" if instruction else ""
    return "\n".join(turn["content"].removeprefix(prefix) for turn in turns[:first])


def prompt_key(prompt: str) -> bytes | None:
    """128 bits of a prompt as it is compared; None for one without a word."""
    from pipelines.data.similarity.duplicates import normalise

    normal = normalise(prompt)
    return _digest(normal, 16) if normal else None


def answer_of(turns: Sequence[Turn]) -> str:
    """The answers, joined."""
    return "\n".join(answers(list(turns)))


def _own_texts(turns: list[Turn], rejected: str | None, instruction: str) -> list[str]:
    """Every text of a row, without what the recipe adds."""
    prefix = f"{instruction}\n\n" if instruction else ""
    texts = [turn["content"].removeprefix(prefix) for turn in turns]
    return texts if rejected is None else [*texts, rejected]


def _keys(texts: Sequence[str]) -> "pa.Array":
    """BLAKE2b of 128 bits each: two of 10^9 different texts share one with a probability below 10^-20."""
    import pyarrow as pa

    return pa.array([_digest(text, 16) for text in texts], pa.binary(16))


def _answer_hashes(turns: Sequence[list[Turn]]) -> "pa.Array":
    """For each row its different answers as 64 bits each: what is counted to find the one that stands most often."""
    import pyarrow as pa

    found = [[answer_hash(text) for text in dict.fromkeys(answers(each))] for each in turns]
    return pa.array(found, pa.list_(pa.uint64()))


def answer_hash(text: str) -> int:
    """64 bits of an answer."""
    return int.from_bytes(_digest(text, 8))


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def _tokens(turns: Sequence[list[Turn]], wanted: ProfileSettings) -> "tuple[pa.Array, pa.Array]":
    """(tokens of each rendered conversation, whether its texts hold tokenizer's or chat templates' marks)."""
    import pyarrow as pa

    tokenizer, own = _tokenizer(wanted.tokenizer) if wanted.tokenizer else (None, None)
    special = [_is_marked(each, own) for each in turns]
    marked = pa.array(special, pa.bool_())
    if tokenizer is None:
        return pa.nulls(len(turns), pa.int32()), marked
    from pipelines.data.chat import escape

    clean = [
        [turn | {"content": escape(tokenizer, turn["content"])[0]} for turn in each] if flag else each
        for each, flag in zip(turns, special, strict=True)
    ]
    rendered = _rendered(tokenizer, clean)
    known = [text for text in rendered if text is not None]
    lengths = iter([len(found) for found in tokenizer.backend_tokenizer.encode_batch_fast(known, False, False)])
    return pa.array([None if text is None else next(lengths) for text in rendered], pa.int32()), marked


def _rendered(tokenizer: Any, conversations: list[list[Turn]]) -> list[str | None]:
    """Each as the template writes it; None where the template refuses (some know no system turn)."""
    pieces: dict[tuple[str, ...], list[str] | None] = {}
    rendered: list[str | None] = []
    for turns in conversations:
        roles = tuple(turn["role"] for turn in turns)
        if roles not in pieces:
            pieces[roles] = _around_contents(tokenizer, roles)
        around, contents = pieces[roles], [turn["content"] for turn in turns]
        # Some templates look for tags in an answer (reasoning), and cut them out.
        if around is None or any("<" in content for content in contents):
            rendered.append(_render(tokenizer, turns))
            continue
        rendered.append("".join(chain.from_iterable(zip(around, [*contents, ""], strict=True))))
    return rendered


def _around_contents(tokenizer: Any, roles: tuple[str, ...]) -> list[str] | None:
    """What the template writes before, between and after the contents of turns in these roles.

    A template takes some 80 us a row, joining strings takes one. None where contents do not come out as they went
    in, each once and in order: then every row is rendered.
    """
    marks = [f" \n\ue000{number}\ue001\n " for number in range(len(roles))]
    text = _render(tokenizer, [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)])
    found, start = [], 0
    for mark in marks:
        place = -1 if text is None else text.find(mark, start)
        if text is None or place < 0 or text.count(mark) != 1:
            return None
        found.append(text[start:place])
        start = place + len(mark)
    return [*found, text[start:] if text else ""]


def _render(tokenizer: Any, turns: list[Turn]) -> str | None:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError:
        return None
    return text


def _is_marked(turns: Sequence[Turn], own: re.Pattern[str] | None) -> bool:
    return any(_CHAT_MARKS.search(turn["content"]) or (own and own.search(turn["content"])) for turn in turns)


@lru_cache(maxsize=2)
def _tokenizer(folder: str) -> tuple[Any, re.Pattern[str]]:
    """The tokenizer and a pattern of its special tokens; once a process, for loading takes a second."""
    from pipelines.data.chat import special_names
    from pipelines.models.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return tokenizer, re.compile("|".join(map(re.escape, special_names(tokenizer))) or "(?!)")
