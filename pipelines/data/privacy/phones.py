"""Telephone numbers in a text: candidates by their form, confirmed by the numbering plans of `phonenumbers`.

The library's own search costs 8 ms for a text of 60 words with digits in it, this one a hundredth of that.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from pipelines.data.privacy.lookalikes import Span, count_digits

_RUN = re.compile(r"[0-9](?:[ ().\-/]{0,3}[0-9]){6,}+")
_DAY = re.compile(r"(?:19|20)[0-9]{2}([./-])[0-9]{2}\1[0-9]{2}(?: [0-9]{1,2})?")
"""Dates are the most frequent runs of digits by far: they are let go before anything is tried."""
_INTERNATIONAL = re.compile(
    r"(?<![\w+/.-])(?P<plus>\+|00(?=[ .(/-]|[1-9][0-9]{0,2}[ .(/-]))[ ]?\(?[1-9](?:[ ().\-/]{0,3}[0-9]){6,14}(?!\w)"
)
_AMERICAN = re.compile(
    r"(?<![\w.,+/-])(?:1[ .-])?"
    r"(?:(?:\([2-9][0-9]{2}\)[ .-]?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[.-]|\([2-9][0-9]{2}\)[ ]?[2-9][0-9]{2}[ ])[0-9]{4}"
    r"(?!\w|[.,/-][0-9])"
)
_TRUNK = re.compile(
    r"(?<![\w.,:+/#-])(?:\(0[1-9][0-9]{0,4}\)|0[1-9][0-9]{0,4}(?=[./-])|(?<![0-9][ ])0[1-9][0-9]{0,4}(?=[ ]))"
    r"(?:[ ./-]{0,2}[0-9]{2,8}){1,5}(?!\w|[.,:/-][0-9])"
)
_SAID = re.compile(
    r"(?<![^\W_])(?:tele?(?:ph?one?|fon|f)?|ph(?:one)?|mobile?|cell(?:ph?one)?|call|fax|handy|whats ?app|sms|ring|"
    r"contact|t[ée]l|m[óo]vil|cellulare|celular)(?![^\W_])[^0-9\n]{0,20}$",
    re.IGNORECASE,
)
_ANY = re.compile(r"\(?[0-9](?:[ ().\-/]{0,2}[0-9]){7,12}(?!\w|[.,:/-][0-9])")
_DATE = re.compile(r"[0-9]{1,2}(?P<s>[./ -])[0-9]{1,2}(?P=s)(?:(?:19|20)[0-9]{2}(?![0-9])|[0-9]{2}(?!(?P=s)?[0-9]))")
_ISBN = re.compile(r"[0-9]{1,5}([ -])[0-9]+\1[0-9]+\1[0-9Xx](?![0-9])")

_WITH_TRUNK = ("GB", "DE", "FR", "NL", "BE", "CH", "AT", "IT", "SE", "FI", "IE", "AU", "NZ", "IN", "JP", "KR", "ZA")
"""Countries whose numbers people write with a leading 0."""
_WITHOUT_TRUNK = ("US", "ES", "PT", "DK", "NO", "PL", "CZ", "GR", "BR", "MX", "SG", "HK")


def find_phones(text: str) -> Iterator[Span]:
    """Telephone numbers that a country has given out, or could.

    Taken: `+` or `00`, a country and its number, with or without separators; American numbers in groups with a
    parenthesis, hyphen or point; numbers with a leading 0 in groups, of the countries that write so; and after a word
    such as "phone" or "call" any number of a country, in groups or not. Left: dates, versions, addresses of hosts,
    ISBNs, plain integers, hashes, numbers that no country uses (such as those of the area 555).
    """
    if count_digits(text) < 7:
        return
    for run in _RUN.finditer(text):
        if not _DAY.fullmatch(run[0]):
            yield from _in_run(text, run.start(), run.end())


def _in_run(text: str, start: int, end: int) -> Iterator[Span]:
    """The numbers in a run of digits and what may stand between them."""
    # A sign before the first digit belongs to the run, and two characters behind it decide whether a number ends.
    before, behind = max(0, start - 3), end + 2
    found = False
    for match in _INTERNATIONAL.finditer(text, before, behind):
        for length in _ends(match[0]):
            if _exists("+" + _digits(match[0][len(match["plus"]) : length]), ("ZZ",)):
                yield match.start(), match.start() + length
                found = True
                break
    for pattern, regions in ((_AMERICAN, ("US",)), (_TRUNK, _WITH_TRUNK)):
        for match in pattern.finditer(text, before, behind):
            if _is_national(match[0]) and _exists(_digits(match[0]), regions):
                yield match.span()
                found = True
    if not found and _SAID.search(text[max(0, start - 40) : start]):
        said = _ANY.match(text, start)
        if said and _is_national(said[0]) and _exists(_digits(said[0]), _WITHOUT_TRUNK + _WITH_TRUNK):
            yield said.span()


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _ends(candidate: str) -> Iterator[int]:
    """Where a number may end: behind the last group of digits, or behind an earlier one."""
    ends = [match.end() for match in re.finditer(r"[0-9]+", candidate)]
    yield from reversed(ends)


def _is_national(candidate: str) -> bool:
    """Whether a number in groups has nine digits (an ISSN has eight) and is neither a date nor an ISBN."""
    return len(_digits(candidate)) >= 9 and not _DATE.match(candidate) and not _ISBN.fullmatch(candidate)


@lru_cache(maxsize=4096)
def _exists(digits: str, regions: tuple[str, ...]) -> bool:
    """Whether the digits are a number of one of the regions (`ZZ`: they name their country)."""
    import phonenumbers

    for region in regions:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(digits, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False
