"""Where two texts differ, word by word: for near-duplicates and leaks that people compare. Pure."""

import re
from difflib import SequenceMatcher

Spans = list[tuple[str, bool]]
"""Pieces of a text in their order, each with whether the other text has it too."""

MOST_WORDS = 600
"""Words of each text that are compared; the rest stands unmarked, for the search is quadratic."""
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")


def differences(left: str, right: str) -> tuple[Spans, Spans]:
    """Both texts in pieces; joined, the pieces are the text."""
    pieces = _PIECES.findall(left), _PIECES.findall(right)
    compared = [side[: 2 * MOST_WORDS] for side in pieces]
    matcher = SequenceMatcher(None, compared[0], compared[1], autojunk=False)
    spans: tuple[Spans, Spans] = ([], [])
    for what, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        for side, start, end in ((0, left_from, left_to), (1, right_from, right_to)):
            if end > start:
                spans[side].append(("".join(compared[side][start:end]), what == "equal"))
    for side in (0, 1):
        if rest := "".join(pieces[side][2 * MOST_WORDS :]):
            spans[side].append((rest, True))
    return spans
