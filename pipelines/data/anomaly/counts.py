"""How often keys were seen in the other folds: two tables of fixed size, however many folds and keys there are."""

from typing import TYPE_CHECKING

from pipelines.data.anomaly.word_ids import mixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FoldCounts:
    """Counts of hashed keys by fold. Keys that share a place are counted together: a few in a full table."""

    def __init__(self, bits: int) -> None:
        """Two tables of `2**bits` places, 4 bytes each."""
        import numpy as np

        self._last = np.uint64(2**bits - 1)
        self._all = np.zeros(2**bits, np.int32)
        self._own = np.zeros(2**bits, np.int32)

    def add(self, keys: "NDArray[np.uint64]", fold: "NDArray[np.int8]") -> None:
        """Count keys that were seen in rows of these folds, one of each for every key."""
        import numpy as np

        for table, places in ((self._all, self._places(keys)), (self._own, self._places_in(keys, fold))):
            # Ten times faster than adding at places, for as many as there are.
            table += np.bincount(places.astype(np.int64), minlength=len(table)).astype(np.int32)

    def elsewhere(self, keys: "NDArray[np.uint64]", fold: "NDArray[np.int8]") -> "NDArray[np.float32]":
        """How often each key was seen outside of its fold."""
        import numpy as np

        counts = self._all[self._places(keys)] - self._own[self._places_in(keys, fold)]
        found: NDArray[np.float32] = np.maximum(counts, 0).astype(np.float32)
        return found

    def _places(self, keys: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
        return mixed(keys) & self._last

    def _places_in(self, keys: "NDArray[np.uint64]", fold: "NDArray[np.int8]") -> "NDArray[np.uint64]":
        import numpy as np

        return mixed(keys + (fold.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)) & self._last
