"""Sides that the data bring."""

import json
from collections import Counter
from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipelines.data.corpus import Corpus
from pipelines.data.sides.splitting import (
    NEWCOMER,
    SIDES,
    TEST,
    TRAIN,
    VALIDATION,
    History,
    Items,
    Places,
    components,
    least,
)
from pipelines.section import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIASES = {"training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "testing": TEST}
"""What hubs call the sides, beside our names."""


def given_sides(corpus: Corpus, rows: "NDArray[np.int64]", column: str) -> "NDArray[np.int8]":
    """The side of each of `rows` as `column` of the data says it, whatever its case.

    Raises UserError when rows lack the column or hold something else there: all values are named, with a row each.
    """
    import numpy as np

    codes = {name: number for number, name in enumerate(SIDES)} | ALIASES
    sides = np.full(len(corpus), -1, np.int8)
    unknown: Counter[str] = Counter()
    places: dict[str, str] = {}
    columns: set[str] = set()
    wanted, start = np.zeros(len(corpus), np.bool_), 0
    wanted[rows] = True
    for batch in corpus.batches(["meta", "file", "position"]):
        for place in np.flatnonzero(wanted[start : start + len(batch)]).tolist():
            held = json.loads(batch["meta"][place].as_py())["columns"]
            value = held.get(column)
            code = codes.get(str(value).strip().casefold()) if value is not None else None
            if code is None:
                shown = "nothing" if value in (None, "") else repr(value)[:60]
                unknown[shown] += 1
                columns |= set(held)
                places.setdefault(shown, f"{batch['file'][place]} row {batch['position'][place]}")
            else:
                sides[start + place] = code
        start += len(batch)
    if unknown:
        named = ", ".join(
            f"{value} ({count:,} rows, first {places[value]})" for value, count in unknown.most_common(10)
        )
        if column not in columns and set(unknown) == {"nothing"} and (sides[rows] < 0).all():
            raise UserError(
                f"split.column: no row has a column {column}{nearest(column, sorted(columns)) or '.'}",
                "Correct split.column, or add the column to the data.",
            )
        raise UserError(
            f"split.column: {column} holds what is no side: {named}.",
            f"Let it hold {', '.join(SIDES)} in every row, or correct split.column.",
        )
    return sides[rows]


def given_places(items: Items, edges: "NDArray[np.int64]", history: History, side: "NDArray[np.int8]") -> Places:
    """The given sides with clusters: each keeps the id that a member had before, or is called by its first one."""
    import numpy as np

    component = components(items, np.arange(len(items)), edges, tied=False)
    names, place = np.unique(np.concatenate((items.ids, history.cluster)), return_inverse=True)
    own, before = place[: len(items)], place[len(items) :]
    first = least(component, np.where(history.side == NEWCOMER, len(names) + own, before)) % len(names)
    return Places(side, names[first[component]])
