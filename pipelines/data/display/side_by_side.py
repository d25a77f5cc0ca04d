"""Where two texts differ, word by word: for near-duplicates and leaks that people compare. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import takewhile

Spans = list[tuple[str, bool]]
"""Pieces of a text in their order, each with whether the other text has it too."""

MOST_WORDS = 400
"""Words of each text, between the beginning and the end that both share, that are compared; the rest is unmarked."""
MOST_PAIRS = 20_000
"""Pairs of equal words above which texts go in circles: to line them up takes long and says nothing."""
_PIECES = re.compile(r"\w+\s*|\s+|[^\w\s]\s*")


def differences(left: str, right: str) -> tuple[Spans, Spans]:
    """Both texts in pieces; joined, the pieces are the text. Spaces and line breaks are no difference."""
    pieces = _PIECES.findall(left), _PIECES.findall(right)
    words = [[piece.strip() for piece in side] for side in pieces]
    opening = _shared(*words)
    closing = _shared(words[0][opening:][::-1], words[1][opening:][::-1])
    middle = [side[opening : len(side) - closing][:MOST_WORDS] for side in words]
    spans: tuple[Spans, Spans] = ([], [])
    for side, own, runs in zip(spans, pieces, _runs(*middle), strict=True):
        compared = opening + sum(length for length, _ in runs)
        place = 0
        for length, same in ((opening, True), *runs, (len(own) - compared, True)):
            if length:
                side.append(("".join(own[place : place + length]), same))
            place += length
    return spans


def _shared(left: Sequence[str], right: Sequence[str]) -> int:
    """How many words both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _runs(left: list[str], right: list[str]) -> tuple[list[tuple[int, bool]], list[tuple[int, bool]]]:
    """For each side (words, whether the other has them too), one run after the other."""
    counts = Counter(left), Counter(right)
    if sum(count * counts[1][word] for word, count in counts[0].items()) > MOST_PAIRS:
        return [(len(left), False)], [(len(right), False)]
    codes = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return (
        [(end - start, what == "equal") for what, start, end, _, _ in codes],
        [(end - start, what == "equal") for what, _, _, start, end in codes],
    )
