"""Reading a page of a corpus for people: filters over columns, then only the row groups that hold what is shown.

A filter by a column costs one pass over that column, kept as codes for the next page. A search in the texts
streams the row groups in their order and ends when the page is full.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.display.view import NO_SIDE, View, shown
from pipelines.data.evidence import Evidence
from pipelines.data.example import Turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLUMNS = (
    *("id", "messages", "rejected", "group", "label", "source", "collector", "annotator", "created_at", "file"),
    *("position", "language", "prompt_words", "answer_words", "tokens"),
)


@dataclass(frozen=True)
class Filters:
    """What the rows of a page have in common; None: anything."""

    source: str | None = None
    label: str | None = None
    language: str | None = None
    suspect: str | None = None
    """Kind of suspicion; `any`: any kind."""
    private: str | None = None
    """Kind of personal data or secret; `any`: any kind."""
    side: str | None = None
    """Side of the split; `none`: rows that are on no side."""
    contains: str | None = None
    """Text that stands in a turn, as it is shown (masked); upper and lower case are the same."""


@dataclass(frozen=True)
class Suspicion:
    """Why a row is suspect."""

    kind: str
    score: float
    reason: str


@dataclass(frozen=True)
class Row:
    """A row as people see it: personal data masked unless the recipe allows them."""

    number: int
    id: str
    turns: tuple[Turn, ...]
    rejected: str | None
    """The answer that was not preferred, of a preference pair."""
    facts: dict[str, Any]
    """The other columns by name, those that are null left out."""
    side: str | None
    cluster: int
    cluster_rows: int
    """Rows of its cluster, itself included."""
    suspicions: tuple[Suspicion, ...]
    private: tuple[str, ...]
    """Kinds of personal data in it."""


@dataclass(frozen=True)
class Page:
    """Rows of one page."""

    rows: tuple[Row, ...]
    total: int | None
    """Rows that pass the filters; None: unknown, as a search ends when the page is full."""
    more: bool
    """Whether another page follows."""


def page_of(view: View, filters: Filters, offset: int = 0, limit: int = 25) -> Page:
    """The rows from the `offset`-th that pass the filters, `limit` at most."""
    import numpy as np

    passing = _passing(view, filters)
    if not filters.contains:
        total = len(view.corpus) if passing is None else len(passing)
        end = min(offset + limit, total)
        found = np.arange(min(offset, end), end) if passing is None else passing[offset:end]
        return Page(rows_of(view, found), total, end < total)
    hits: list[int] = []
    for number in _containing(view, filters.contains, passing):
        hits.append(number)
        if len(hits) > offset + limit:
            break
    return Page(rows_of(view, hits[offset : offset + limit]), None, len(hits) > offset + limit)


def rows_of(view: View, numbers: "Sequence[int] | NDArray[np.int64]") -> tuple[Row, ...]:
    """These rows, in this order."""
    wanted = [int(number) for number in numbers]
    names = [name for name in _COLUMNS if name in view.corpus.columns]
    table = view.corpus.take(wanted, names).to_pylist()
    suspicions, private = _suspicions(view, wanted), _private(view.evidence, wanted)
    sizes = view.cluster_rows
    return tuple(
        Row(
            number=number,
            id=row["id"],
            turns=tuple(turn | {"content": shown(view, turn["content"])} for turn in json.loads(row["messages"])),
            rejected=shown(view, _rejected(row["rejected"])) if row.get("rejected") else None,
            facts={
                name: shown(view, value) if isinstance(value, str) else value
                for name, value in row.items()
                if name not in _COLUMNS[:3] and value not in (None, "")
            },
            side=view.sides.of(number) if view.sides else None,
            cluster=int(view.evidence.cluster[number]),
            cluster_rows=int(sizes[view.evidence.cluster[number]]),
            suspicions=suspicions.get(number, ()),
            private=private.get(number, ()),
        )
        for number, row in zip(wanted, table, strict=True)
    )


def _passing(view: View, filters: Filters) -> "NDArray[np.int64] | None":
    """Numbers of the rows that pass the filters over columns; None: all."""
    import numpy as np

    masks = []
    for name in ("source", "label", "language"):
        wanted = getattr(filters, name)
        if wanted is not None:
            if name not in view.corpus.columns:
                return np.zeros(0, np.int64)
            codes, values = view.codes(name)
            masks.append(codes == (values.index(wanted) if wanted in values else -2))
    for table, kind in (("suspects", filters.suspect), ("private", filters.private)):
        if kind is not None:
            masks.append(_marked(view, table, kind))
    if filters.side is not None:
        if view.sides is None:
            return np.zeros(0, np.int64)
        names = (*view.sides.names, NO_SIDE)
        code = names.index(filters.side) if filters.side in names else -2
        masks.append(view.sides.codes == (-1 if filters.side == NO_SIDE else code))
    return np.flatnonzero(np.logical_and.reduce(masks)) if masks else None


def _marked(view: View, table: str, kind: str) -> "NDArray[np.bool_]":
    import numpy as np

    found = getattr(view.evidence, table)
    rows = found["row"].to_numpy()
    if kind != "any":
        rows = rows[np.asarray(found["kind"].to_pylist(), dtype=object) == kind]
    mask = np.zeros(len(view.corpus), bool)
    mask[rows] = True
    return mask


def _containing(view: View, needle: str, passing: "NDArray[np.int64] | None") -> Iterator[int]:
    import numpy as np
    import pyarrow.compute as pc

    # As it stands inside JSON; a quick look that lets through more than it should, then an exact one.
    quick, exact = json.dumps(needle, ensure_ascii=False)[1:-1], needle.casefold()
    mask = None
    if passing is not None:
        mask = np.zeros(len(view.corpus), bool)
        mask[passing] = True
    start = 0
    private = ["private"] if view.masked and "private" in view.corpus.columns else []
    for batch in view.corpus.batches(["messages", *private]):
        looked = pc.match_substring(batch["messages"], quick, ignore_case=True)
        if private:
            # A masked text holds words that the stored one does not: it has to be looked at whole.
            looked = pc.or_(looked, batch["private"].is_valid())
        for place in pc.indices_nonzero(looked).to_pylist():
            if mask is None or mask[start + place]:
                turns = json.loads(batch["messages"][place].as_py())
                if any(exact in shown(view, turn["content"]).casefold() for turn in turns):
                    yield start + place
        start += len(batch)


def _rejected(stored: str) -> str:
    """The rejected answer as text: it is stored as JSON, of a text or of turns."""
    value = json.loads(stored)
    if isinstance(value, list):
        return "\n".join(str(turn.get("content", "")) if isinstance(turn, dict) else str(turn) for turn in value)
    return str(value)


def _suspicions(view: View, rows: list[int]) -> dict[int, tuple[Suspicion, ...]]:
    found: dict[int, tuple[Suspicion, ...]] = {}
    for item in _of_rows(view.evidence.suspects, rows):
        # A reason may quote the text.
        one = Suspicion(item["kind"], item["score"], shown(view, item["reason"]))
        found[item["row"]] = (*found.get(item["row"], ()), one)
    return found


def _private(evidence: Evidence, rows: list[int]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for item in _of_rows(evidence.private, rows):
        found[item["row"]] = tuple(dict.fromkeys((*found.get(item["row"], ()), item["kind"])))
    return found


def _of_rows(table: Any, rows: list[int]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[dict[str, Any]] = table.filter(pc.is_in(table["row"], value_set=pa.array(rows, pa.int64()))).to_pylist()
    return found
