"""The sets that a model will be compared on, as texts: what a training set must not hold."""

from collections.abc import Iterable, Iterator
from typing import Any

from cluster.errors import UserError
from pipelines.data.example import Unreadable, text_of
from pipelines.data.profile import prompt_of
from pipelines.data.reading.canonical import canonicalise, choose_format
from pipelines.data.reading.formats import RawRow, raw_rows
from pipelines.data.reading.read import resolve
from pipelines.data.reading.sources import bytes_fingerprint
from pipelines.fingerprint import fingerprint
from pipelines.recipe_data import Dataset, Source

TEXT_COLUMNS = ("text", "question", "prompt", "input", "problem", "query", "goal", "messages", "conversations")
"""Where a row that is no conversation has its text: the first of these that it has."""

BENCHMARKS_VERSION = 1
"""Enters the fingerprint: raise it when the same file gives other items."""


def benchmark_items(sources: Source) -> Iterator[tuple[str, str]]:
    """(name, text) of every item, the name with its file and row; conversations give their prompt alone too.

    The prompt, because a question that was learnt with another answer was learnt all the same. Raises UserError
    with the file that cannot be read, or the row that holds no text: a set that is searched for in part is no proof.
    """
    if not sources:
        return
    dataset = Dataset(source=sources)
    inputs = resolve(dataset)
    for file in inputs.files:
        yield from _items(((file.name, row) for row in raw_rows(file)), dataset)
    for package in inputs.packages:
        yield from _items(package.rows(), dataset)


def benchmarks_fingerprint(sources: Source) -> str | None:
    """SHA-256 over the files' names and bytes and the packages' versions; None: no set is named."""
    if not sources:
        return None
    inputs = resolve(Dataset(source=sources))
    return fingerprint(
        BENCHMARKS_VERSION,
        sorted((file.name, bytes_fingerprint(file)) for file in inputs.files),
        sorted(package.fingerprint() for package in inputs.packages),
    )


def _items(rows: Iterable[tuple[str, RawRow]], dataset: Dataset) -> Iterator[tuple[str, str]]:
    for place, row in rows:
        name = f"{place}:{row.position}"
        for number, text in enumerate(_texts(row, dataset, name)):
            yield (f"{name} (prompt)" if number else name), text


def _texts(row: RawRow, dataset: Dataset, name: str) -> list[str]:
    if not row.value:
        raise UserError(f"split.benchmarks: {name}: {row.problem or 'the row has no columns'}.", "Correct the file.")
    try:
        turns = canonicalise(row.value, choose_format(row.value, dataset, name), dataset, (name, row.position)).turns
    except (UserError, Unreadable):
        # A question alone teaches nothing, but it can be asked.
        return [_text_column(row.value, name)]
    return [text_of(turns), prompt_of([turn for turn in turns if turn["role"] != "system"])]


def _text_column(row: dict[str, Any], name: str) -> str:
    for column in TEXT_COLUMNS:
        if text := _text(row.get(column)).strip():
            return text
    raise UserError(
        f"split.benchmarks: {name}: no conversation and no text; the columns are {', '.join(map(str, row))}.",
        f"Name the column with the text one of {', '.join(TEXT_COLUMNS)}.",
    )


def _text(value: Any) -> str:
    """Text, a list of texts or a list of turns as one text; empty where it is none of these."""
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    if isinstance(value, list):
        return "\n".join(_text(each) for each in value if not isinstance(each, list))
    return value if isinstance(value, str) else ""
