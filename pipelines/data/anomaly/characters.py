"""How surprising a text's character sequences are: keyboard noise is, words of the same kind of data are not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.data.anomaly.counts import FoldCounts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOOKED_AT = 500
"""Characters of a text that are looked at."""
SMOOTHING = 2.0
"""How many observations the shorter sequence counts as."""


class CharacterModel:
    """Counts of one, two and three bytes in a row, by fold. Digits are one character, cases are the same."""

    def __init__(self) -> None:
        self._counts = [FoldCounts(12), FoldCounts(16), FoldCounts(16), FoldCounts(20)]

    def add(self, texts: Sequence[str], fold: "NDArray[np.int8]") -> None:
        """Learn from texts of these folds."""
        row, keys = _sequences(texts)
        for counts, found in zip(self._counts, keys, strict=True):
            counts.add(found, fold[row])

    def surprise(self, texts: Sequence[str], fold: "NDArray[np.int8]") -> "NDArray[np.float64]":
        """Mean bits of each text's characters under what was learnt in other folds; NaN for an empty one."""
        import numpy as np

        row, keys = _sequences(texts)
        folds = fold[row]
        seen = [counts.elsewhere(found, folds) for counts, found in zip(self._counts, keys, strict=True)]
        probability = np.full(len(row), 1 / 256)
        goes_on = np.concatenate(([False], row[1:] == row[:-1])) if len(row) else np.zeros(0, bool)
        for level in (1, 2, 3):
            # The history of a sequence is the shorter one that ends a character before; a text's first has none.
            of = seen[0] if level == 1 else np.where(goes_on, np.roll(seen[level - 1], 1), 0)
            with_history = (seen[level] + SMOOTHING * probability) / (np.maximum(of, seen[level]) + SMOOTHING)
            probability = np.where((level == 1) | goes_on, with_history, probability)
        size = np.bincount(row, minlength=len(texts))
        with np.errstate(invalid="ignore"):
            bits: NDArray[np.float64] = np.bincount(row, -np.log2(probability), minlength=len(texts)) / size
        return bits


def _sequences(texts: Sequence[str]) -> "tuple[NDArray[np.int64], list[NDArray[np.uint64]]]":
    """The text of each byte, and the sequences of 0, 1, 2 and 3 bytes that end at it, as numbers."""
    import numpy as np

    parts = [" ".join(text[:LOOKED_AT].lower().split()).encode("utf-8", errors="replace") for text in texts]
    row = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    flat = np.frombuffer(b"".join(parts), np.uint8).astype(np.uint64)
    flat[(flat >= 48) & (flat <= 57)] = 48
    keys = [np.zeros(len(flat), np.uint64), flat]
    for back in (1, 2):
        # Before a text stands nothing: a zero, which is in none.
        earlier = np.zeros(len(flat), np.uint64)
        earlier[back:] = np.where(row[back:] == row[:-back], flat[:-back], np.uint64(0))
        keys.append(keys[-1] | (earlier << np.uint64(8 * back)))
    return row, keys
