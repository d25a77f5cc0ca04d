"""Characters that look like ASCII: a text in which rules for ASCII find what a reader sees."""

import unicodedata
from functools import cache

Span = tuple[int, int]

_WITHOUT_WIDTH = frozenset(
    map(chr, [0xAD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF])
)
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_LAST_DIGIT = 0x1FBF9
"""No decimal digit stands behind this code point (Unicode 16)."""
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))


def fold(text: str) -> tuple[str, list[int] | None]:
    """`text` with digits, letters, signs, dashes and spaces of other scripts and widths as ASCII.

    Each replaced character is one character. Characters without a width are left out; then the second value
    says for each remaining character where it stands in `text`, else it is None.
    """
    if text.isascii():
        return text, None
    alphabet, ascii_of = set(text), _ascii_of()
    for character in ascii_of.keys() & alphabet:
        text = text.replace(character, ascii_of[character])
    if _WITHOUT_WIDTH.isdisjoint(alphabet):
        return text, None
    places = [place for place, character in enumerate(text) if character not in _WITHOUT_WIDTH]
    return "".join([text[place] for place in places]), places


def count_digits(text: str) -> int:
    """How many digits stand in a folded text: the cheapest question that rules most texts out."""
    return len(text.encode("utf-8", "replace").translate(None, _NO_DIGITS))


@cache
def _ascii_of() -> dict[str, str]:
    """Character -> the ASCII character that it looks like."""
    table = dict.fromkeys(_DASHES, "-")
    for code in range(0x80, _LAST_DIGIT + 1):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            table[character] = str(unicodedata.digit(character))
        elif category == "Zs":
            table[character] = " "
        elif unicodedata.decomposition(character).startswith(("<wide>", "<small>", "<font>")):
            same = unicodedata.normalize("NFKC", character)
            if len(same) == 1 and same.isascii():
                table[character] = same
    return table
