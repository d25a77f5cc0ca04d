"""What near-duplicates are: texts whose shingles overlap. The definition, on single texts as plain values.

`sketches.py` and `clusters.py` find them among many; the tests hold those against the functions here. Banding as
in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
"""

import re
import unicodedata

WORDS_PER_SHINGLE = 5
CHARACTERS_PER_SHINGLE = 5
SHORT_WORDS = 10
"""A text of fewer words has too few word shingles: it is compared by its characters."""
PERMUTATIONS = 128
MISSED = 1e-3
"""The most of the pairs just at the threshold that banding may miss."""


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


def banding(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """(bands, rows of a band): the longest band of at most 4 rows that misses no more than MISSED at `threshold`."""
    for rows in (4, 3, 2):
        bands = permutations // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return bands, rows
    return permutations, 1
