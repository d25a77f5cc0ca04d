"""What people look through: clusters of repeats side by side, and suspects, the worst first."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.data.display.browse import Row, rows_of
from pipelines.data.display.view import View
from pipelines.data.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MEMBERS = 6
"""Different texts of a cluster that are shown."""
COPIES = 5
"""Rows of the same text whose places are shown."""
Repeats = Literal["near", "exact"]


@dataclass(frozen=True)
class Member:
    """A text of a cluster."""

    row: Row
    """The first row that has it."""
    copies: tuple[int, ...]
    """Rows with the same text, itself first; COPIES at most."""
    count: int
    """How many they are in all."""
    similarity: float | None
    """To the cluster's first text; None: they belong together through others."""
    kind: str
    """near, semantic, or nothing where there is no direct edge."""


@dataclass(frozen=True)
class Cluster:
    """Rows that repeat one another."""

    number: int
    rows: int
    texts: int
    members: tuple[Member, ...]
    """The first MEMBERS texts."""


@dataclass(frozen=True)
class Queue:
    """Rows that are suspect, the worst first."""

    rows: tuple[Row, ...]
    total: int


def clusters_of(view: View, repeats: Repeats, offset: int = 0, limit: int = 10) -> tuple[tuple[Cluster, ...], int]:
    """The clusters from the `offset`-th, the largest first, and how many there are.

    `near`: of two different texts or more; `exact`: one text in several rows.
    """
    order = _ranking(*view.stamp[2:], repeats)
    return tuple(cluster_of(view, int(number)) for number in order[offset : offset + limit]), len(order)


def cluster_of(view: View, number: int) -> Cluster:
    """The cluster of this number (its smallest row)."""
    import numpy as np

    text, cluster = view.evidence.text, view.evidence.cluster
    own = np.flatnonzero(cluster == number)
    texts, counts = np.unique(text[own], return_counts=True)
    shown = texts[:MEMBERS]
    near = _edges_of(view.evidence, int(texts[0]))
    members = []
    for row, count in zip(rows_of(view, shown), counts, strict=False):
        copies = own[text[own] == row.number][:COPIES]
        similarity, kind = near.get(row.number, (None, ""))
        members.append(Member(row, tuple(int(copy) for copy in copies), int(count), similarity, kind))
    return Cluster(number, len(own), len(texts), tuple(members))


def suspects_of(
    view: View, kind: str | None, offset: int = 0, limit: int = 10, *, without: "NDArray[np.int64] | None" = None
) -> Queue:
    """The suspect rows of this kind (None: of any) from the `offset`-th, by score; `without` these rows."""
    import numpy as np

    order = worst_first(view.evidence.suspects, kind)
    if without is not None:
        order = order[~np.isin(order, without)]
    return Queue(rows_of(view, order[offset : offset + limit]), len(order))


def worst_first(suspects: "pa.Table", kind: str | None) -> "NDArray[np.int64]":
    """Row numbers, each once.

    Scores of different kinds have different units: without a kind, rows of more kinds come first, then those that
    rank first within theirs.
    """
    import numpy as np

    rows = suspects["row"].to_numpy()
    score = np.nan_to_num(suspects["score"].to_numpy(), nan=0.0)
    kinds = np.asarray(suspects["kind"].to_pylist(), dtype=object)
    if kind is not None:
        kept = kinds == kind
        found, score = rows[kept], score[kept]
        return _once(found[np.lexsort((found, -score))])
    rank = np.zeros(len(rows))
    for each in np.unique(kinds.astype(str)):
        own = np.flatnonzero(kinds == each)
        rank[own[np.argsort(-score[own], kind="stable")]] = np.arange(len(own))
    unique, place, times = np.unique(rows, return_inverse=True, return_counts=True)
    best = np.full(len(unique), np.inf)
    np.minimum.at(best, place, rank)
    ordered: NDArray[np.int64] = unique[np.lexsort((unique, best, -times))]
    return ordered


def _once(rows: "NDArray[np.int64]") -> "NDArray[np.int64]":
    import numpy as np

    _, first = np.unique(rows, return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(first)]
    return kept


def _edges_of(evidence: Evidence, row: int) -> dict[int, tuple[float, str]]:
    """Text -> (similarity, kind) of the edges of this text."""
    import pyarrow.compute as pc

    edges = evidence.edges
    own = edges.filter(pc.or_(pc.equal(edges["left"], row), pc.equal(edges["right"], row))).to_pylist()
    return {edge["right"] if edge["left"] == row else edge["left"]: (edge["similarity"], edge["kind"]) for edge in own}


@lru_cache(maxsize=8)
def _ranking(folder: str, stamp: int, repeats: Repeats) -> "NDArray[np.int64]":
    """Numbers of the clusters, the largest first."""
    import numpy as np

    evidence = Evidence(Path(folder))
    text, cluster = evidence.text, evidence.cluster
    rows = np.bincount(cluster, minlength=len(cluster))
    texts = np.bincount(cluster[text == np.arange(len(text))], minlength=len(cluster))
    found = np.flatnonzero(texts >= 2 if repeats == "near" else (texts == 1) & (rows >= 2))
    ranked: NDArray[np.int64] = found[np.lexsort((found, -rows[found]))]
    return ranked
