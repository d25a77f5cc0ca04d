"""Near-duplicates: texts whose shingles overlap, found by MinHash and confirmed exactly.

Pure functions on plain values. Signatures and banding as in Broder, "On the resemblance and containment of
documents" (1997) and Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS_PER_SHINGLE = 5
CHARACTERS_PER_SHINGLE = 5
SHORT_WORDS = 10
"""A text of fewer words has too few word shingles: it is compared by its characters."""
PERMUTATIONS = 128
MISSED = 1e-3
"""The most of the pairs just at the threshold that banding may miss."""
DENSE = 64
"""Texts of one band among which every pair is looked at. Of more (texts from a template) each is joined with
the first that it is near instead: the pairs of ten thousand like texts would fill the memory, and say no more."""
SIGNATURE_VERSION = "rensa-2"
"""Of the signature's algorithm: the library changed it once."""

Pair = tuple[int, int, float]
"""Two indexes, the lower first, and their similarity."""


def normalise(text: str) -> str:
    """`text` without case, punctuation and spacing: what two texts must share to be the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # A text of punctuation alone keeps it: all such texts are not one text.
    return " ".join(re.findall(r"\w+", folded)) or " ".join(folded.split())


def word_shingles(normal: str) -> set[str]:
    """Every five words in a row of a normalised text."""
    words = normal.split()
    last = max(1, len(words) - WORDS_PER_SHINGLE + 1)
    return {" ".join(words[i : i + WORDS_PER_SHINGLE]) for i in range(last)}


def character_shingles(normal: str) -> set[str]:
    """Every five characters in a row of a normalised text."""
    last = max(1, len(normal) - CHARACTERS_PER_SHINGLE + 1)
    return {normal[i : i + CHARACTERS_PER_SHINGLE] for i in range(last)}


def is_short(normal: str) -> bool:
    """Whether a normalised text is compared by its characters."""
    return normal.count(" ") + 1 < SHORT_WORDS


def jaccard(left: set[str], right: set[str]) -> float:
    """Shared elements over all elements."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def similarity(left: str, right: str) -> float:
    """Jaccard similarity of two normalised texts: of characters when either is short, else of words."""
    shingles = character_shingles if is_short(left) or is_short(right) else word_shingles
    return jaccard(shingles(left), shingles(right))


def near_duplicate_pairs(normals: Sequence[str], threshold: float, seed: int = 1) -> list[Pair]:
    """The pairs of the normalised texts whose similarity is at least `threshold`.

    All of them, but for MISSED of those just at the threshold, and of more than DENSE like texts enough
    to connect them.
    """
    long = [i for i, text in enumerate(normals) if not is_short(text)]
    short = [i for i, text in enumerate(normals) if is_short(text)]
    pairs = _confirmed({i: word_shingles(normals[i]) for i in long}, threshold, seed)
    if short:
        characters = {i: character_shingles(normals[i]) for i in short}
        # A longer text can be as near as the threshold only while its set is not larger than this.
        largest = max(len(found) for found in characters.values()) / threshold
        for i in long:
            if len(found := character_shingles(normals[i])) <= largest:
                characters[i] = found
        is_long = set(long)
        pairs += [
            pair for pair in _confirmed(characters, threshold, seed) if not (pair[0] in is_long and pair[1] in is_long)
        ]
    return sorted(pairs)


def connected(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `size` nodes the smallest node that `edges` connect it with, directly or not."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in edges:
        a, b = root(left), root(right)
        if a != b:
            parent[max(a, b)] = min(a, b)
    return [root(node) for node in range(size)]


def banding(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """(bands, rows of a band): the longest band of at most 4 rows that misses no more than MISSED at `threshold`."""
    for rows in (4, 3, 2):
        bands = permutations // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return bands, rows
    return permutations, 1


def _confirmed(sets: dict[int, set[str]], threshold: float, seed: int) -> list[Pair]:
    """The pairs of `sets` at or above the threshold: candidates from shared bands, then exact Jaccard."""
    keys = list(sets)
    values: dict[tuple[int, int], float] = {}

    def is_near(left: int, right: int) -> bool:
        pair = (left, right)
        if pair not in values:
            values[pair] = jaccard(sets[keys[left]], sets[keys[right]])
        return values[pair] >= threshold

    for bucket in _buckets(_signatures(list(sets.values()), seed), *banding(threshold)):
        if len(bucket) <= DENSE:
            for i, left in enumerate(bucket):
                for right in bucket[i + 1 :]:
                    is_near(left, right)
            continue
        leaders: list[int] = []
        for member in bucket:
            if not any(is_near(leader, member) for leader in leaders) and len(leaders) < DENSE:
                leaders.append(member)
    return [
        (min(keys[a], keys[b]), max(keys[a], keys[b]), value) for (a, b), value in values.items() if value >= threshold
    ]


def _signatures(sets: list[set[str]], seed: int) -> "NDArray[np.uint32]":
    """MinHash signatures, (number of sets, PERMUTATIONS)."""
    import numpy as np
    from rensa import RMinHash

    assert f"rensa-{RMinHash.ALGORITHM_VERSION}" == SIGNATURE_VERSION, "the signature's algorithm has changed"
    parts: list[Any] = [np.zeros((0, PERMUTATIONS), np.uint32)]
    for start in range(0, len(sets), 10_000):
        tokens = [list(found) for found in sets[start : start + 10_000]]
        rows = RMinHash.digest_matrix_from_token_sets(tokens, PERMUTATIONS, seed).to_rows()
        parts.append(np.array(rows, np.uint32))
    return np.concatenate(parts)


def _buckets(signatures: "NDArray[np.uint32]", bands: int, rows: int) -> Iterator[list[int]]:
    """For each band the rows that agree in all of it, ascending, where there are several."""
    import numpy as np

    if not len(signatures):
        return
    for band in range(bands):
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * rows))).ravel()
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        ends = np.append(starts[1:], len(keys))
        several = ends - starts > 1
        for start, end in zip(starts[several], ends[several], strict=True):
            yield sorted(order[start:end].tolist())
