"""How common tokens are, and on how many sides they stand: counted in hashed buckets of a fixed size."""

from typing import TYPE_CHECKING

from pipelines.data.leaks.text_store import Sets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Sides = NDArray[np.int64]
    """For each row the number of its side."""

RARITY_BITS = 8
HASH_BITS = 43
"""Of a token in an order key: behind its rarity, and low enough for 2,048 rows before it."""

_COUNT_BITS, _SIDE_BITS = 22, 26
"""Of the buckets, at most."""


class Census:
    """How many texts hold a token, and on how many sides: in hashed buckets, so never too few."""

    def __init__(self, tokens: int, sides: "Sides") -> None:
        """`tokens`: about how many there will be, which decides the size; `sides`: of each row."""
        import numpy as np

        self._sides = sides
        self._few_sides = len(sides) == 0 or int(sides.max()) < 8
        bits = int(tokens).bit_length() + 1
        self._counts = np.zeros(1 << min(bits, _COUNT_BITS), np.uint32)
        # Larger, so that most tokens that stand on one side alone are seen to.
        self._on = np.zeros(1 << min(bits, _SIDE_BITS) if self._few_sides else 0, np.uint8)

    def add(self, sets: Sets) -> None:
        """Count the tokens of these texts."""
        import numpy as np

        np.add.at(self._counts, _bucket(sets.tokens, len(self._counts)), np.uint32(1))
        if not self._few_sides:
            return
        side = np.repeat(self._sides[sets.rows], sets.sizes)
        buckets = _bucket(sets.tokens, len(self._on))
        for each in np.flatnonzero(np.bincount(side)):
            self._on[buckets[side == each]] |= np.uint8(1 << int(each))

    def on_several_sides(self, tokens: "NDArray[np.uint64]") -> "NDArray[np.bool_]":
        """False only for tokens that no two texts on two sides hold."""
        if not self._few_sides:
            several: NDArray[np.bool_] = self._counts[_bucket(tokens, len(self._counts))] > 1
            return several
        on = self._on[_bucket(tokens, len(self._on))]
        found: NDArray[np.bool_] = (on & (on - 1)) != 0
        return found

    def common(self, most: int) -> "NDArray[np.bool_]":
        """The buckets whose tokens stand in more than `most` texts, by `in_buckets`."""
        import numpy as np

        # What shares the bucket by chance is no reason to call a token common.
        flags: NDArray[np.bool_] = self._counts > most + np.ceil(self._counts.mean())
        return flags

    def keys(self, sets: Sets) -> "NDArray[np.uint64]":
        """For each token its place in the order of all: rare ones first, then by hash."""
        import numpy as np

        counts = self._counts[_bucket(sets.tokens, len(self._counts))]
        rarity = np.minimum(4 * np.log2(np.maximum(counts, 1)), (1 << RARITY_BITS) - 1).astype(np.uint64)
        low = sets.tokens & np.uint64((1 << HASH_BITS) - 1)
        keys: NDArray[np.uint64] = low | (rarity << np.uint64(HASH_BITS))
        return keys


def in_buckets(tokens: "NDArray[np.uint64]", flags: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    """The flag of each token's bucket."""
    found: NDArray[np.bool_] = flags[_bucket(tokens, len(flags))]
    return found


def _bucket(tokens: "NDArray[np.uint64]", size: int) -> "NDArray[np.int64]":
    import numpy as np

    return (tokens & np.uint64(size - 1)).astype(np.int64)
