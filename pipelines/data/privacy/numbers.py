"""Numbers of payment cards and bank accounts in a text: those whose check digits fit."""

import re
from collections.abc import Iterator

from pipelines.data.privacy.lookalikes import Span, count_digits

_LONG = re.compile(r"[0-9](?:[ .-]?[0-9]){12,}+")
_GROUP = re.compile(r"(?<!\w)[0-9]{4} $")
_CARD = re.compile(
    r"""(?<![\w.,+-])
    (?: \d{13,19}
      | \d{4}(?P<a>[ .-])\d{4}(?P=a)\d{4}(?P=a)\d{4}(?:(?P=a)\d{3})?
      | \d{4}(?P<b>[ .-])\d{6}(?P=b)\d{4,5}
    )
    (?! \w | [ .,-]?\d{4} | [.,-]\d )""",
    re.VERBOSE | re.ASCII,
)
_CARD_LENGTHS = (
    # Issuers' number ranges (ISO/IEC 7812): Visa, American Express, Mastercard, Diners Club, Discover, JCB,
    # UnionPay, Mir, Maestro.
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"30[0-5]|3095|3[689]"), (14, 16, 19)),
    (re.compile(r"6011|64[4-9]|65"), (16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16, 19)),
    (re.compile(r"62|81"), (16, 17, 18, 19)),
    (re.compile(r"220[0-4]"), (16, 19)),
    (re.compile(r"50|5[6-8]|6[37]"), (16, 18, 19)),
)

_IBAN_START = re.compile(r"[0-9]{2}(?<=[A-Za-z]{2}[0-9]{2})(?<![0-9A-Za-z][A-Za-z]{2}[0-9]{2})")
_IBAN_REST = re.compile(r"(?:[ -]?[0-9A-Za-z]){11,30}")
_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH CR HR LI LV",
    22: "BG BH DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
"""The IBAN registry's countries by the length of their numbers (ISO 13616)."""
_IBAN_LENGTHS = {country: length for length, countries in _COUNTRIES.items() for country in countries.split()}


def find_cards(text: str) -> Iterator[Span]:
    """Card numbers: 13 to 19 digits in a row or in the groups printed on cards, in an issuer's range, Luhn holding.

    Left: numbers with letters, points or further groups of four beside them (hashes, decimals, tables).
    """
    if count_digits(text) < 13:
        return
    for run in _LONG.finditer(text):
        # Five characters behind the run decide whether a number ends there.
        for match in _CARD.finditer(text, run.start(), run.end() + 5):
            one_of_a_row = " " in match[0] and _GROUP.search(text[max(0, match.start() - 6) : match.start()])
            if not one_of_a_row and _is_card(re.sub(r"\D", "", match[0])):
                yield match.span()


def find_ibans(text: str) -> Iterator[Span]:
    """Account numbers with a country of the registry, its length, and a remainder of 1 modulo 97 (ISO 13616).

    In one piece or in groups with single spaces or hyphens between, in capitals or small letters.
    """
    if count_digits(text) < 7:
        return
    for start in _IBAN_START.finditer(text):
        begin = start.start() - 2
        length = _IBAN_LENGTHS.get(text[begin : begin + 2].upper())
        rest = _IBAN_REST.match(text, start.end()) if length else None
        if length is None or rest is None:
            continue
        end = start.end()
        for _ in range(length - 4):
            end += 2 if text[end : end + 1] in (" ", "-") else 1
        number = text[begin:end].replace(" ", "").replace("-", "")
        if end <= rest.end() and not text[end : end + 1].isalnum() and _one_case(number) and _remainder(number) == 1:
            yield begin, end


def _is_card(digits: str) -> bool:
    issued = any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _CARD_LENGTHS)
    return issued and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def _one_case(number: str) -> bool:
    return number in (number.upper(), number.lower())


def _remainder(number: str) -> int:
    """Of an account number modulo 97, its first four characters moved to the end and letters as 10 to 35."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97
