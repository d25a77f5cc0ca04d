"""Pairs of rows that are near each other, as arrays; and what they connect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Edges:
    """Pairs of rows (the lower first) and their similarities."""

    left: "NDArray[np.int64]"
    right: "NDArray[np.int64]"
    similarity: "NDArray[np.float64]"


def joined(parts: Sequence[Edges]) -> Edges:
    """One after another."""
    import numpy as np

    empty = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    columns = zip(*((part.left, part.right, part.similarity) for part in [empty, *parts]), strict=True)
    return Edges(*(np.concatenate(column) for column in columns))


def once(edges: Edges) -> Edges:
    """Each pair once, ascending."""
    import numpy as np

    order = np.lexsort((edges.right, edges.left))
    left, right = edges.left[order], edges.right[order]
    first = np.ones(len(left), bool)
    first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Edges(left[first], right[first], edges.similarity[order][first])


def components(size: int, left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """For each of `size` nodes the smallest node that the edges connect it with, directly or not."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    count, label = connected_components(graph, directed=False)
    smallest = np.full(count, size, np.int64)
    np.minimum.at(smallest, label, np.arange(size))
    roots: NDArray[np.int64] = smallest[label]
    return roots
