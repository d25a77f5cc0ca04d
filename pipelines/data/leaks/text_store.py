"""Normalised texts in a file, and the sets of hashed sequences that they are compared by, some thousand at a time.

The verifier's own: it shares no hash with the sketches that a split is made by. A sequence of words or characters
is known by 52 bits of a hash, so that its row fits beside it and one sort makes a batch's sets: two different
sequences are taken for one with a probability of 2^-52.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from pipelines.data.similarity.duplicates import CHARACTERS_PER_SHINGLE, WORDS_PER_SHINGLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKEN_BITS = 52
"""Of a sequence's hash."""
LONG_SEQUENCE = 13
"""Words in a row that two texts share by descent rather than by chance (Brown et al., "Language models are
few-shot learners", 2020, appendix C)."""

_ROWS, _BYTES = 2048, 2**20
"""Of a block, about: rows must fit into the 64 - TOKEN_BITS bits beside a token."""
_STEP = 0xD6E8FEB86659FD93
_SPICE = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
_SPACE, _END = 32, 10
_SPACED = 1 << (TOKEN_BITS - 1)

Kind = Literal["words", "characters", "long"]
"""Five words, five characters or LONG_SEQUENCE words in a row."""


@dataclass(frozen=True)
class Sets:
    """What some texts hold: the distinct tokens of each, ascending, one text after another."""

    rows: "NDArray[np.int64]"
    """Numbers of the texts, ascending."""
    tokens: "NDArray[np.uint64]"
    starts: "NDArray[np.int64]"
    """Where each text's tokens begin, and where the last one's end."""

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """Tokens of each text."""
        return self.starts[1:] - self.starts[:-1]

    @property
    def places(self) -> "NDArray[np.int64]":
        """For each token the place in `rows` of the text that holds it."""
        import numpy as np

        return np.repeat(np.arange(len(self.rows)), self.sizes)

    def only(self, wanted: "NDArray[np.bool_]") -> "Sets":
        """The sets without the tokens that are not wanted."""
        import numpy as np

        sizes = np.bincount(self.places[wanted], minlength=len(self.rows))
        return Sets(self.rows, self.tokens[wanted], _starts(sizes))

    def of(self, wanted: "NDArray[np.bool_]") -> "Sets":
        """The sets of the wanted texts alone."""
        import numpy as np

        return Sets(self.rows[wanted], self.tokens[np.repeat(wanted, self.sizes)], _starts(self.sizes[wanted]))


@dataclass(frozen=True)
class _Block:
    """Some texts that lie together in the files."""

    first: int
    """Number of the first text."""
    lengths: "NDArray[np.int64]"
    """Words of each."""
    bytes: int
    """Of all, with a line break behind each."""


class TextStore:
    """Texts in nameless files that end with this object, numbered in the order in which they were added.

    Their words' hashes lie beside them: hashing them takes longer than reading them, and they are read several times.
    """

    def __init__(self) -> None:
        self._texts: IO[bytes] = tempfile.TemporaryFile(prefix="sluice-texts-")  # noqa: SIM115 - as long as the store
        self._words: IO[bytes] = tempfile.TemporaryFile(prefix="sluice-words-")  # noqa: SIM115
        self._blocks: list[_Block] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Words of each text; an empty one is one empty word."""
        import numpy as np

        return np.concatenate([np.zeros(0, np.int64), *(block.lengths for block in self._blocks)])

    def add(self, normals: Iterable[str]) -> None:
        """Append normalised texts."""
        waiting: list[bytes] = []
        size = 0
        for text in normals:
            data = text.encode("utf-8", "surrogatepass")
            if waiting and (len(waiting) == _ROWS or size + len(data) > _BYTES):
                self._write(waiting)
                waiting, size = [], 0
            waiting.append(data)
            size += len(data)
        if waiting:
            self._write(waiting)

    def _write(self, texts: list[bytes]) -> None:
        # A normalised text holds no line break.
        data = b"\n".join(texts) + b"\n"
        words, lengths = _word_hashes(data)
        for stream, written in ((self._texts, data), (self._words, words.tobytes())):
            stream.seek(0, 2)
            stream.write(written)
        self._blocks.append(_Block(self._rows, lengths, len(data)))
        self._rows += len(texts)

    def sets(self, kind: Kind, wanted: "NDArray[np.bool_]") -> Iterator[Sets]:
        """The sets of the wanted texts, block by block; of kind `long` some are empty."""
        import numpy as np

        stream = self._texts if kind == "characters" else self._words
        start = 0
        for block in self._blocks:
            size = block.bytes if kind == "characters" else 8 * int(block.lengths.sum())
            here = wanted[block.first : block.first + len(block.lengths)]
            if here.any():
                stream.seek(start)
                data = stream.read(size)
                if kind == "characters":
                    found = _sets_of(*_character_hashes(data), block)
                else:
                    width = WORDS_PER_SHINGLE if kind == "words" else LONG_SEQUENCE
                    words = np.frombuffer(data, np.uint64)
                    hashes, _, rows = _sequences(words, block.lengths, width)
                    found = _sets_of(hashes, rows, block)
                yield found if here.all() else found.of(here)
            start += size


def _sets_of(hashes: "NDArray[np.uint64]", rows: "NDArray[np.int64]", block: _Block) -> Sets:
    import numpy as np

    # One sort orders by row and by token within it.
    keys = np.sort((rows.astype(np.uint64) << np.uint64(TOKEN_BITS)) | hashes)
    distinct = np.ones(len(keys), bool)
    distinct[1:] = keys[1:] != keys[:-1]
    keys = keys[distinct]
    count = len(block.lengths)
    sizes = np.bincount((keys >> np.uint64(TOKEN_BITS)).astype(np.int64), minlength=count)
    return Sets(block.first + np.arange(count), keys & np.uint64((1 << TOKEN_BITS) - 1), _starts(sizes))


def _word_hashes(data: bytes) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    """(a hash of each word, the number of words of each text); an empty text is one empty word."""
    import numpy as np

    points = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero((points == _SPACE) | (points == _END))
    starts = np.concatenate(([0], breaks[:-1] + 1))
    lengths = breaks - starts + 1
    # A polynomial over a word's bytes, each spread over 64 bits; the break that ends it counts as nothing.
    spread = _mixed(np.arange(1, 257, dtype=np.uint64))
    spread[[_SPACE, _END]] = 0
    powers = np.cumprod(np.full(int(lengths.max()), _STEP, np.uint64))
    terms = spread[points] * powers[np.arange(len(points)) - np.repeat(starts, lengths)]
    words = np.diff(np.concatenate(([0], np.flatnonzero(points[breaks] == _END) + 1)))
    return _mixed(np.add.reduceat(terms, starts)), words


def _character_hashes(data: bytes) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    """(a token of every five characters in a row, the text of each); its highest bit: whether it holds a space."""
    import numpy as np

    points = np.frombuffer(data.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.flatnonzero(points == _END)
    lengths = np.diff(np.concatenate(([-1], ends))) - 1
    points = np.delete(points, ends)
    hashes, offsets, rows = _sequences(_mixed(points.astype(np.uint64)), lengths, CHARACTERS_PER_SHINGLE)
    before = np.concatenate(([0], np.cumsum(points == _SPACE)))
    counts = np.maximum(1, lengths - CHARACTERS_PER_SHINGLE + 1)
    places = np.arange(len(rows)) - np.repeat(_starts(counts)[:-1] - offsets, counts)
    stops = np.minimum(places + CHARACTERS_PER_SHINGLE, np.repeat(offsets + lengths, counts))
    spaced = before[stops] > before[places]
    hashes = (hashes & np.uint64(_SPACED - 1)) | (spaced.astype(np.uint64) << np.uint64(TOKEN_BITS - 1))
    return hashes, rows


def _sequences(
    items: "NDArray[np.uint64]", lengths: "NDArray[np.int64]", width: int
) -> "tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]":
    """(a token of every `width` items in a row, where each text's items begin, the text of each token).

    A text of fewer items is one sequence, but has no long one.
    """
    import numpy as np

    offsets = _starts(lengths)[:-1]
    shorter = lengths < width
    counts = np.where(shorter, 0 if width == LONG_SEQUENCE else 1, lengths - width + 1)
    rows = np.repeat(np.arange(len(lengths)), counts)
    hashes = np.zeros(len(rows), np.uint64)
    if len(items) >= width:
        # Of sequences that reach into the next text too: they are passed over when the places are picked.
        every = np.zeros(len(items) - width + 1, np.uint64)
        for step in range(width):
            every = every * np.uint64(_STEP) + items[step : len(items) - width + 1 + step]
        places = np.arange(len(rows)) - np.repeat(_starts(counts)[:-1] - offsets, counts)
        hashes = every[np.minimum(places, len(every) - 1)]
    if width != LONG_SEQUENCE:
        for size in range(width):
            few = np.flatnonzero(lengths == size)
            whole = np.full(len(few), size, np.uint64)
            for step in range(size):
                whole = whole * np.uint64(_STEP) + items[offsets[few] + step]
            hashes[_starts(counts)[:-1][few]] = whole
    return _mixed(hashes) >> np.uint64(64 - TOKEN_BITS), offsets, rows


def holds_space(tokens: "NDArray[np.uint64]") -> "NDArray[np.bool_]":
    """Whether the characters that a token stands for hold a space."""
    import numpy as np

    found: NDArray[np.bool_] = (tokens & np.uint64(_SPACED)) != 0
    return found


def _mixed(values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Each value's bits spread over all 64, one to one (the last step of MurmurHash3; Appleby, 2011)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(33))) * np.uint64(_SPICE[0])
    values = (values ^ (values >> np.uint64(33))) * np.uint64(_SPICE[1])
    return values ^ (values >> np.uint64(33))


def _starts(sizes: "NDArray[np.int64]") -> "NDArray[np.int64]":
    import numpy as np

    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
