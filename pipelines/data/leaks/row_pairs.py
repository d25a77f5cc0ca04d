"""Pairs of rows as arrays: met in ranges, each kept once, and no more than memory holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_PAIRS = 5_000_000
"""Where more pairs are found the search ends: nobody reads them, and memory ends too."""
CHUNK = 2_000_000
"""Candidates that are looked at together."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, each once."""

    left: "NDArray[np.int64]"
    right: "NDArray[np.int64]"
    value: "NDArray[np.float64]"
    """Similarity, or share."""
    complete: bool = True
    """False: the search ended at MOST_PAIRS."""

    def __len__(self) -> int:
        return len(self.left)


class Collector:
    """Pairs as they are found, each kept once with its largest value."""

    def __init__(self) -> None:
        self._parts: list[Pairs] = []
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether there are MOST_PAIRS."""
        if self._count > MOST_PAIRS:
            self._parts = [self._merged()]
            self._count = len(self._parts[0])
        return self._count > MOST_PAIRS

    def add(self, left: "NDArray[np.int64]", right: "NDArray[np.int64]", value: "NDArray[np.float64]") -> None:
        """Keep these."""
        if len(left):
            self._parts.append(Pairs(left, right, value))
            self._count += len(left)

    def pairs(self) -> Pairs:
        """All that were added, by left and right row."""
        merged = self._merged()
        return Pairs(merged.left, merged.right, merged.value, not self.full)

    def _merged(self) -> Pairs:
        import numpy as np

        if not self._parts:
            return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        left, right, value = (
            np.concatenate([getattr(part, name) for part in self._parts]) for name in ("left", "right", "value")
        )
        order = np.lexsort((-value, right, left))
        left, right, value = left[order], right[order], value[order]
        first = np.ones(len(left), bool)
        first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
        return Pairs(left[first], right[first], value[first])


def ranges(
    one: "NDArray[np.int32]", other: "NDArray[np.int32]", start: "NDArray[np.int64]", stop: "NDArray[np.int64]"
) -> "Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]":
    """Each of `one` with each of `other` from its `start` to its `stop`, about CHUNK pairs at a time."""
    import numpy as np

    counts = stop - start
    some = np.flatnonzero(counts)
    before = np.cumsum(counts[some])
    first = 0
    while first < len(some):
        done = before[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(before, done + CHUNK, side="right")))
        part = some[first:last]
        many = counts[part]
        offsets = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
        yield (
            np.repeat(one[part], many).astype(np.int64),
            other[np.repeat(start[part], many) + offsets].astype(np.int64),
        )
        first = last


def distinct_pairs(
    left: "NDArray[np.int64]", right: "NDArray[np.int64]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Each pair once, in their order."""
    import numpy as np

    packed = np.sort((left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64))
    first = np.ones(len(packed), bool)
    first[1:] = packed[1:] != packed[:-1]
    packed = packed[first]
    return (packed >> np.uint64(32)).astype(np.int64), (packed & np.uint64(2**32 - 1)).astype(np.int64)
