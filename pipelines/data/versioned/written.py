"""The rows of a split as they are written, streamed from the corpus."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.example import digits_of
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.splitting import PLACES, Places
from pipelines.data.versioned.table import schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_NAMES = ("group", "label", "source", "collector", "annotator")
"""Columns whose equal cells belong together: these still tell their rows apart when they are masked."""
_COPIED = ("id", "messages", "rejected", "group", "label", "source", "collector", "annotator", "created_at", "meta")
_AS_IT_IS = Masking()


def written_rows(
    corpus: Corpus,
    rows: "NDArray[np.int64]",
    places: Places | None = None,
    fold: "NDArray[np.int8] | None" = None,
    *,
    mask: Masking = _AS_IT_IS,
) -> "Iterator[pa.RecordBatch]":
    """These rows (ascending) in the table's columns; those that the places give are null without them.

    `mask`: what is private is replaced in every column; the ids stay those of the conversations as they were read.
    `fold`: -1 where a row is in none.
    """
    import numpy as np
    import pyarrow as pa

    names = pa.array(PLACES)
    private = ["private"] if mask.kinds and "private" in corpus.columns else []
    start = done = 0
    for batch in corpus.batches([*_COPIED, *private]):
        stop = done + int(np.searchsorted(rows[done : done + len(batch)], start + len(batch)))
        here = rows[done:stop] - start
        start += len(batch)
        if not len(here):
            continue
        taken = batch.take(pa.array(here))
        columns = {name: taken[name] for name in _COPIED}
        if private:
            columns |= _masked(columns, taken["private"].is_valid(), mask)
        empty = pa.nulls(len(here), pa.string())
        columns["split"] = names.take(pa.array(places.side[done:stop])) if places else empty
        columns["cluster"] = pa.array(places.cluster[done:stop].astype(str), pa.string()) if places else empty
        of_fold = np.full(len(here), -1) if fold is None else fold[done:stop]
        columns["fold"] = pa.array(of_fold, pa.int32(), mask=of_fold < 0)
        done = stop
        yield pa.RecordBatch.from_arrays([columns[field.name] for field in schema()], schema=schema())


def _masked(columns: "dict[str, pa.Array]", found: "pa.Array", mask: Masking) -> "dict[str, pa.Array]":
    """The columns with what is private replaced, in the rows where something was `found`."""
    texts = {name: partial(_masked_json, mask=mask) for name in ("messages", "rejected", "meta")}
    names = {name: partial(mask.name, column=name) for name in _NAMES}
    replace: dict[str, Callable[[str], str]] = {**texts, **names, "created_at": mask.text}
    return {name: _replaced(columns[name], found, change) for name, change in replace.items()}


def _replaced(cells: "pa.Array", found: "pa.Array", change: "Callable[[str], str]") -> "pa.Array":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pc.and_(found, cells.is_valid())
    places = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
    if not len(places):
        return cells
    distinct = cells.take(pa.array(places)).dictionary_encode()
    changed = pa.array([change(text) for text in distinct.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(cells, wanted, changed.take(distinct.indices))


def _masked_json(text: str, mask: Masking) -> str:
    def masked(value: Any) -> Any:
        match value:
            case str():
                return mask.text(value)
            case bool():
                return value
            case int() | float():
                hidden = mask.text(digits := digits_of(value))
                return value if hidden == digits else hidden
            case list():
                return [masked(item) for item in value]
            case dict():
                names = _distinct([mask.text(name) for name in value])
                return dict(zip(names, map(masked, value.values()), strict=True))
        return value

    return json.dumps(masked(json.loads(text)), ensure_ascii=False)


def _distinct(names: list[str]) -> list[str]:
    """The names, each with a number behind it where it stood there before: two addresses must not be one column."""
    found: dict[str, None] = {}
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name} {number}"
        found[new] = None
    return list(found)
