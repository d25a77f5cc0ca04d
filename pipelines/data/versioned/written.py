"""The rows of a split as they are written, streamed from the corpus."""

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.sides.splitting import PLACES, Places
from pipelines.data.versioned.table import schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_COPIED = ("id", "messages", "rejected", "group", "label", "source", "collector", "annotator", "created_at", "meta")


def written_rows(
    corpus: Corpus,
    rows: "NDArray[np.int64]",
    places: Places | None = None,
    fold: "NDArray[np.int8] | None" = None,
    *,
    mask: Collection[str] = (),
) -> "Iterator[pa.RecordBatch]":
    """These rows (ascending) in the table's columns; those that the places give are null without them.

    `mask`: kinds of personal data and secrets that are replaced by their names; the ids stay those of the
    conversations as they were read. `fold`: -1 where a row is in none.
    """
    import numpy as np
    import pyarrow as pa

    names = pa.array(PLACES)
    private = ["private"] if mask and "private" in corpus.columns else []
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
            for name in ("messages", "rejected", "meta"):
                columns[name] = _masked(taken[name], taken["private"], mask)
        empty = pa.nulls(len(here), pa.string())
        columns["split"] = names.take(pa.array(places.side[done:stop])) if places else empty
        columns["cluster"] = pa.array(places.cluster[done:stop].astype(str), pa.string()) if places else empty
        of_fold = np.full(len(here), -1) if fold is None else fold[done:stop]
        columns["fold"] = pa.array(of_fold, pa.int32(), mask=of_fold < 0)
        done = stop
        yield pa.RecordBatch.from_arrays([columns[field.name] for field in schema()], schema=schema())


def _masked(cells: "pa.Array", private: "pa.Array", kinds: Collection[str]) -> "pa.Array":
    """The cells (JSON text) with what is private masked, in the rows where something was found."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.and_(private.is_valid(), cells.is_valid())
    places = np.flatnonzero(found.to_numpy(zero_copy_only=False))
    if not len(places):
        return cells
    replaced = [_masked_json(cells[place].as_py(), kinds) for place in places.tolist()]
    return pc.replace_with_mask(cells, found, pa.array(replaced, pa.string()))


def _masked_json(text: str, kinds: Collection[str]) -> str:
    from pipelines.data.privacy.private import mask_private

    def masked(value: Any) -> Any:
        match value:
            case str():
                return mask_private(value, kinds)
            case list():
                return [masked(item) for item in value]
            case dict():
                return {name: masked(item) for name, item in value.items()}
        return value

    return json.dumps(masked(json.loads(text)), ensure_ascii=False)
