"""Folds for models that must not have learnt from what they judge."""

from typing import TYPE_CHECKING

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
    return (_mixed(cluster.astype(np.uint64), seed) % np.uint64(k)).astype(np.int8)


def _mixed(numbers: "NDArray[np.uint64]", seed: int) -> "NDArray[np.uint64]":
    """Each number's bits well mixed: SplitMix64's finaliser (Steele, Lea and Flood 2014, figure 16)."""
    import numpy as np

    # Products wrap around, as they are meant to.
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64((seed + 1) * _GOLDEN % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
