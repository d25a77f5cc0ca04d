"""Folds for models that must not have learnt from what they judge."""

from typing import TYPE_CHECKING

from pipelines.data.anomaly.word_ids import mixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15


def folds_by_cluster(cluster: "NDArray[np.int64]", k: int, seed: int) -> "NDArray[np.int8]":
    """For each row its fold, 0 to k - 1, by a seeded hash of its cluster: rows of one cluster share a fold.

    A cluster's fold depends on its number, the seed and k alone, whatever other rows there are.
    """
    import numpy as np

    assert 2 <= k <= np.iinfo(np.int8).max
    seeded = cluster.astype(np.uint64) + np.uint64((seed + 1) * _GOLDEN % 2**64)
    return (mixed(seeded) % np.uint64(k)).astype(np.int8)
