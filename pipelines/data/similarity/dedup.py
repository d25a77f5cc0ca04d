"""Which row of each near-duplicate cluster stays. Arrays in, a boolean array out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def keep_first(cluster: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """The smallest row of each cluster."""
    import numpy as np

    return _first_of_each(cluster, np.arange(len(cluster)))


def keep_best(
    cluster: "NDArray[np.int64]", by_a_person: "NDArray[np.bool_]", answer_words: "NDArray[np.int32]"
) -> "NDArray[np.bool_]":
    """Of each cluster the row by a person, of several the one with the longest answer, of several the smallest."""
    import numpy as np

    order = np.lexsort((np.arange(len(cluster)), -answer_words.astype(np.int64), ~by_a_person))
    return _first_of_each(cluster, order)


def _first_of_each(cluster: "NDArray[np.int64]", order: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    import numpy as np

    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    best = np.full(len(order), len(order), np.int64)
    np.minimum.at(best, cluster, rank)
    kept: NDArray[np.bool_] = rank == best[cluster]
    return kept
