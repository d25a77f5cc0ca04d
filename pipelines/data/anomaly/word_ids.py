"""The words of many texts as numbers, some five microseconds a text: no Python object for a word."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 2000
"""Characters of a text that are looked at: one endless row must not cost what a thousand do."""
TOGETHER = 1024
"""Texts whose words are cut out at once."""
STEM = 5
"""Bytes of a word that stand for its other forms too (return, returns, returned)."""

_SEPARATES, _IS_IN, _BEGINS = 0, 1, 2


@dataclass(frozen=True)
class Words:
    """The words of texts, one after another."""

    ids: "NDArray[np.uint64]"
    """A 64-bit hash of each word in lower case."""
    stems: "NDArray[np.uint64]"
    """The same of its first STEM bytes."""
    row: "NDArray[np.int64]"
    """The text that each stands in, from 0, ascending."""
    texts: int

    @property
    def counts(self) -> "NDArray[np.int64]":
        """Words of each text."""
        import numpy as np

        return np.bincount(self.row, minlength=self.texts)


def words_of(texts: Sequence[str]) -> Words:
    """The words of each text's first LONGEST characters: runs of letters and digits; Chinese characters singly."""
    # Each byte takes some fifty while words are cut out: of a few texts at a time.
    parts = [_words_of(texts[start : start + TOGETHER]) for start in range(0, len(texts), TOGETHER)]
    return parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: Sequence[Words]) -> Words:
    """The texts of all, one after another."""
    import numpy as np

    none, rows, before = np.zeros(0, np.uint64), [np.zeros(0, np.int64)], 0
    for part in parts:
        rows.append(part.row + before)
        before += part.texts
    ids, stems = ([none, *(getattr(part, name) for part in parts)] for name in ("ids", "stems"))
    return Words(np.concatenate(ids), np.concatenate(stems), np.concatenate(rows), before)


def _words_of(texts: Sequence[str]) -> Words:
    import numpy as np

    parts = [text[:LONGEST].lower().encode("utf-8", errors="replace") for text in texts]
    size = np.array([len(part) + 1 for part in parts], np.int64)
    flat = np.frombuffer(b"".join(part + b" " for part in parts), np.uint8)
    kinds = _kinds(flat)
    inside = np.flatnonzero(kinds)
    if not len(inside):
        return Words(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64), len(parts))
    after_gap = np.concatenate(([True], np.diff(inside) > 1))
    firsts = np.flatnonzero(after_gap | (kinds[inside] == _BEGINS))
    starts = inside[firsts]
    place = inside - np.repeat(starts, np.diff(np.append(firsts, len(inside))))
    of_byte, of_place = _factors()
    # A sum of products: words of the same letters in another order get another number.
    values = of_byte[flat[inside]] * of_place[np.minimum(place, len(of_place) - 1)]
    ids = np.add.reduceat(values, firsts)
    stems = np.add.reduceat(np.where(place < STEM, values, np.uint64(0)), firsts)
    row = np.repeat(np.arange(len(parts)), size)[starts]
    return Words(mixed(ids), mixed(stems ^ np.uint64(1)), row, len(parts))


def sequences(words: Words, length: int) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    """(hash, row) of every `length` words in a row of one text."""
    import numpy as np

    last = max(0, len(words.ids) - length + 1)
    keys = np.zeros(last, np.uint64)
    for place in range(length):
        keys = mixed(keys + words.ids[place : place + last])
    whole = words.row[:last] == words.row[length - 1 :] if last else np.zeros(0, bool)
    return keys[whole], words.row[:last][whole]


def mixed(numbers: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Each number with its bits well mixed (SplitMix64's finaliser: Steele, Lea and Flood 2014, figure 16)."""
    import numpy as np

    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _kinds(flat: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """Of each byte of UTF-8 whether it separates words, is in one, or begins one of its own."""
    import numpy as np

    table = np.full(256, _SEPARATES, np.uint8)
    for low, high in (b"az", b"09"):
        table[low : high + 1] = _IS_IN
    table[0x80:] = _IS_IN
    # U+3000 to U+9FFF: Chinese and Japanese, written without spaces.
    table[0xE3:0xEA] = _BEGINS
    kinds: NDArray[np.uint8] = table[flat]
    # U+2000 to U+2FFF (dashes, quotation marks, symbols) and U+0080 to U+00BF are no letters.
    for lead, length in ((0xE2, 3), (0xC2, 2)):
        places = np.flatnonzero(flat == lead)
        for offset in range(length):
            kinds[places + offset] = _SEPARATES
    return kinds


@lru_cache(maxsize=1)
def _factors() -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    """Random numbers, odd ones by place: always the same."""
    import numpy as np

    chance = np.random.default_rng(1)
    of_byte = chance.integers(1, 2**63, 256, np.uint64)
    return of_byte, chance.integers(1, 2**63, 256, np.uint64) * np.uint64(2) + np.uint64(1)
