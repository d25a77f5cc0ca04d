"""Sketches of texts: hashed shingles, MinHash signatures of them, and the signatures' bands as keys.

All over a batch of normalised texts at once; no Python object per shingle. A shingle is known by 64 bits of a
hash, so that two different shingles of two texts are taken for one with a probability of 2^-63: what is counted
over hashes is the Jaccard similarity of the shingles themselves for any text that fits on a disk.

Signatures and banding as in Broder, "On the resemblance and containment of documents" (1997) and Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.word_ids import mixed
from pipelines.data.similarity.duplicates import (
    CHARACTERS_PER_SHINGLE,
    PERMUTATIONS,
    SHORT_WORDS,
    WORDS_PER_SHINGLE,
    banding,
    character_shingles,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SKETCH_VERSION = "rensa-2.1"
"""Of the algorithm of signatures and of our hashes: columns of another version are no neighbours of these."""
SEED = 1
"""Of the permutations."""

_MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Ragged:
    """Rows of several values each, one after another."""

    values: "NDArray[np.uint64]"
    offsets: "NDArray[np.int64]"
    """Where each row begins, and where the last one ends."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """Values of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def row_of(self) -> "NDArray[np.int64]":
        """For each value the row that it is of."""
        import numpy as np

        return np.repeat(np.arange(len(self)), self.sizes)

    def take(self, rows: "NDArray[np.int64]") -> "Ragged":
        """These rows, in this order."""
        import numpy as np

        sizes = self.sizes[rows]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        return Ragged(self.values[places], offsets)

    def distinct(self) -> "Ragged":
        """Each row's values once, ascending."""
        import numpy as np

        rows = self.row_of
        order = np.argsort(self.values)
        # Rows fit into 16 bits in a batch, and of such numpy sorts by digits, in linear time.
        narrow = rows.astype(np.uint16) if len(self) <= 1 << 16 else rows
        order = order[np.argsort(narrow[order], kind="stable")]
        values, rows = self.values[order], rows[order]
        first = np.ones(len(values), bool)
        first[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
        sizes = np.bincount(rows[first], minlength=len(self))
        return Ragged(values[first], np.concatenate(([0], np.cumsum(sizes))))


def sorted_once(values: "NDArray[Any]") -> "NDArray[Any]":
    """The distinct values, ascending."""
    import numpy as np

    # As `np.unique`, which hashes integers since numpy 2.3: forty times slower here.
    values = np.sort(values)
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return values[first]


@dataclass(frozen=True)
class _Words:
    """The words of texts: of each its number among the distinct ones."""

    numbers: Ragged
    distinct: "pa.LargeStringArray"


def sketch_columns(normals: Sequence[str], threshold: float) -> "dict[str, pa.Array]":
    """For each band of word space (`band_w00`, ...) and of character space (`band_c00`, ...) a key for each text.

    Texts that agree in a key of one band are candidates. Null where a text is not in that space: a text of fewer
    than SHORT_WORDS words is in character space only; a longer one in word space, and in character space too
    where it could reach such a short one.
    """
    import numpy as np

    words = _words(normals)
    is_long = words.numbers.sizes >= SHORT_WORDS
    by_words = np.flatnonzero(is_long)
    maybe = np.flatnonzero(~is_long | _may_reach_a_short_one(words, threshold)).tolist()
    by_characters = [i for i in maybe if not is_long[i] or _could_reach_a_short_one(normals[i], threshold)]
    characters = character_hashes([normals[i] for i in by_characters])
    columns = _band_columns("w", _word_hashes(words).take(by_words), by_words, len(normals), threshold)
    return columns | _band_columns("c", characters, np.array(by_characters, np.int64), len(normals), threshold)


def band_names(space: str, threshold: float) -> list[str]:
    """Names of the columns of a space, `w` or `c`."""
    return [f"band_{space}{band:02d}" for band in range(banding(threshold)[0])]


def word_hashes(normals: Sequence[str]) -> Ragged:
    """A hash of every five words in a row of each normalised text, repeats included."""
    return _word_hashes(_words(normals))


def _words(normals: Sequence[str]) -> _Words:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    split = pc.split_pattern(pa.array(normals, pa.large_string()), " ")
    encoded = split.flatten().dictionary_encode()
    offsets = np.asarray(split.offsets, dtype=np.int64)
    return _Words(Ragged(encoded.indices.to_numpy().astype(np.uint64), offsets - offsets[0]), encoded.dictionary)


def _word_hashes(words: _Words) -> Ragged:
    import pandas as pd

    # SipHash with a fixed key: the same in every process, unlike `hash`.
    hashes = pd.util.hash_array(words.distinct.to_numpy(zero_copy_only=False).astype(object), categorize=False)
    return _windows(Ragged(hashes[words.numbers.values], words.numbers.offsets), WORDS_PER_SHINGLE)


def character_hashes(normals: Sequence[str]) -> Ragged:
    """A hash of every five characters in a row of each normalised text, repeats included."""
    import numpy as np

    points = np.frombuffer("".join(normals).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, normals), np.int64, len(normals))
    return _windows(Ragged(points, np.concatenate(([0], np.cumsum(lengths)))), CHARACTERS_PER_SHINGLE)


def _windows(items: Ragged, width: int) -> Ragged:
    """A hash of every `width` items in a row of each row; of all of them where a row has fewer."""
    import numpy as np

    sizes = items.sizes
    offsets = np.concatenate(([0], np.cumsum(np.maximum(1, sizes - width + 1))))
    hashes = np.empty(offsets[-1], np.uint64)
    spread = _mixed(items.values)
    if len(spread) >= width:
        # Of windows that reach into the next row too: they are passed over when the places are picked.
        every = np.full(len(spread) - width + 1, width, np.uint64)
        for step in range(width):
            every = every * np.uint64(_MULTIPLIER) + spread[step : len(spread) - width + 1 + step]
        places = np.arange(offsets[-1]) + np.repeat(items.offsets[:-1] - offsets[:-1], offsets[1:] - offsets[:-1])
        hashes = every[np.minimum(places, len(every) - 1)]
    for size in range(width):
        rows = np.flatnonzero(sizes == size)
        few = np.full(len(rows), size, np.uint64)
        for step in range(size):
            few = few * np.uint64(_MULTIPLIER) + spread[items.offsets[rows] + step]
        hashes[offsets[rows]] = few
    return Ragged(_mixed(hashes), offsets)


def _mixed(values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Each value's bits spread over all 64, one to one; a zero's too."""
    import numpy as np

    return mixed(values + np.uint64(_MULTIPLIER))


def _could_reach_a_short_one(normal: str, threshold: float) -> bool:
    """Whether some text of fewer than SHORT_WORDS words may be as near as `threshold` by characters."""
    shingles = character_shingles(normal)
    spaced = sum(" " in shingle for shingle in shingles)
    return bool(_reaches(spaced, len(shingles) - spaced, threshold))


def _may_reach_a_short_one(words: _Words, threshold: float) -> "NDArray[np.bool_]":
    """False only where `_could_reach_a_short_one` is: what the words alone tell, which settles most texts."""
    import numpy as np
    import pyarrow.compute as pc

    numbers, row_of = words.numbers.values, words.numbers.row_of
    length = pc.utf8_length(words.distinct).to_numpy()

    def cut(start: int, stop: int | None) -> "NDArray[np.uint64]":
        part = pc.utf8_slice_codeunits(words.distinct, start, stop).dictionary_encode().indices
        codes: NDArray[np.uint64] = part.to_numpy().astype(np.uint64)
        return codes

    def different(keys: "NDArray[np.uint64]", rows: "NDArray[np.int64]") -> "NDArray[np.uint64]":
        return sorted_once((rows.astype(np.uint64) << np.uint64(48)) | keys)

    def count(keys: "NDArray[np.uint64]", weights: "NDArray[np.int64] | None" = None) -> "NDArray[np.float64]":
        rows = (keys >> np.uint64(48)).astype(np.int64)
        return np.bincount(rows, weights, minlength=len(words.numbers)).astype(np.float64)

    # Shingles with one space: before four letters of a word, after four, and between two and two.
    longer = length[numbers] >= 4
    starts = count(different(cut(0, 4)[numbers[longer]], row_of[longer]))
    ends = count(different(cut(-4, None)[numbers[longer]], row_of[longer]))
    joint = (row_of[1:] == row_of[:-1]) & (length[numbers[1:]] > 1) & (length[numbers[:-1]] > 1)
    left, right = cut(-2, None)[numbers[:-1]], cut(0, 2)[numbers[1:]]
    joints = count(different((left << np.uint64(24) | right)[joint], row_of[1:][joint]))
    # The first word has no space before it, the last one none behind.
    spaced = np.maximum(0, starts + ends - 2) + joints
    own = different(numbers, row_of)
    unspaced = count(own, np.maximum(0, length - 4)[own & np.uint64((1 << 48) - 1)])
    reaches: NDArray[np.bool_] = _reaches(spaced, unspaced, threshold)
    return reaches


def _reaches(spaced: Any, unspaced: Any, threshold: float) -> Any:
    """Whether a text of so many shingles with and without a space could be as near as `threshold` to a short one.

    A short text has at most SHORT_WORDS - 2 spaces, so at most five times as many shingles that hold one. It shares
    at most min(spaced, that) + unspaced with the longer text, all of whose shingles are in the union.
    """
    import numpy as np

    shared = np.minimum(spaced, CHARACTERS_PER_SHINGLE * (SHORT_WORDS - 2)) + unspaced
    return shared >= threshold * (spaced + unspaced)


def _band_columns(
    space: str, shingles: Ragged, rows: "NDArray[np.int64]", size: int, threshold: float
) -> "dict[str, pa.Array]":
    import numpy as np
    import pyarrow as pa

    absent = np.ones(size, bool)
    absent[rows] = False
    columns = {}
    for name, keys in zip(band_names(space, threshold), _bands(signatures(shingles), threshold), strict=True):
        spread = np.zeros(size, np.uint64)
        spread[rows] = keys
        columns[name] = pa.array(spread, mask=absent)
    return columns


def signatures(shingles: Ragged) -> "NDArray[np.uint32]":
    """MinHash signatures, (rows, PERMUTATIONS)."""
    import numpy as np
    from rensa import RMinHash

    assert SKETCH_VERSION.startswith(f"rensa-{RMinHash.ALGORITHM_VERSION}."), "the signature's algorithm has changed"
    if not len(shingles):
        return np.zeros((0, PERMUTATIONS), np.uint32)
    offsets = shingles.offsets.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.values, offsets, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _bands(signature: "NDArray[np.uint32]", threshold: float) -> "Iterator[NDArray[np.uint64]]":
    import numpy as np

    bands, rows = banding(threshold)
    for band in range(bands):
        key = np.zeros(len(signature), np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            key = _mixed(key * np.uint64(_MULTIPLIER) + signature[:, column])
        yield key
