"""Personal data and secrets that belong to nobody, planted in texts: made by other means than they are found by."""

import base64
import json
import string
from random import Random
from typing import NamedTuple

KINDS = ("email", "phone", "card", "iban", "secret")


class Truth(NamedTuple):
    """What was planted: `text[start:end]`."""

    kind: str
    start: int
    end: int


def plant(text: str, kind: str, rng: Random) -> tuple[str, Truth]:
    """`text` with a sentence that holds one piece of `kind` between two of its words, and where the piece stands."""
    before, value, after = _MAKERS[kind](rng)
    places = [0, *(place + 1 for place, character in enumerate(text) if character == " "), len(text)]
    place = rng.choice(places)
    head = text[:place] + ("" if not place or text[place - 1].isspace() else " ") + before
    tail = after + (" " if place < len(text) else "") + text[place:]
    return head + value + tail, Truth(kind, len(head), len(head) + len(value))


def _pick(rng, characters, count):
    return "".join(rng.choice(characters) for _ in range(count))


def _digits(rng, form):
    """`form` with a digit for every x, and for every n one from 2 (an exchange such as 911 is given to nobody)."""
    return "".join(rng.choice("23456789") if c == "n" else rng.choice("0123456789") if c == "x" else c for c in form)


FIRST = ("maria", "john", "li", "fatima", "jürgen", "aoife", "Kwame", "olga", "sven", "priya", "x", "DJANGO")
LAST = ("smith", "garcía", "o'neill", "müller", "nguyen", "kowalski", "van-dijk", "Rossi", "jones99", "tanaka")
HOSTS = ("gmail.com", "mail.co.uk", "firma-beispiel.de", "uni.edu", "sub.dept.example.org", "posteo.net", "x.io")


def _email(rng):
    form = rng.choice(("{f}.{l}", "{f}_{l}", "{f}{n}", "{f}.{l}+{n}", "{f}-{l}", "{f}"))
    local = form.format(f=rng.choice(FIRST), l=rng.choice(LAST).replace("'", ""), n=rng.randrange(1, 2000))
    at = "\uff20" if rng.random() < 0.02 else "@"
    frame = rng.choice(
        (
            ("Write to ", "."),
            ("", " is my address."),
            ("mailto:", " works too."),
            ("Contact <", ">."),
            ("(", ")"),
            ('{"email": "', '"}'),
            ("Email:", ","),
            ("请联系", "谢谢。"),
            ("*", "*"),
        )
    )
    return frame[0], f"{local}{at}{rng.choice(HOSTS)}", frame[1]


PHONES = (
    # (form, whether it stands only after a word that says what it is)
    ("+1 212-nxn-xxxx", False),
    ("+1 (415) nxn xxxx", False),
    ("+1312nxnxxxx", False),
    ("(617) nxn-xxxx", False),
    ("206-nxn-xxxx", False),
    ("713.nxn.xxxx", False),
    ("1-202-nxn-xxxx", False),
    ("+44 20 7946 0xxx", False),
    ("+44 77122xxxxx", False),
    ("07700 900xxx", False),
    ("020 7946 0xxx", False),
    ("+49 30 2345xxxx", False),
    ("+49 (0)171 234xxxx", False),
    ("0171 234xxxx", False),
    ("030/2345xxxx", False),
    ("+33 6 12 xx xx xx", False),
    ("06 12 xx xx xx", False),
    ("06.12.xx.xx.xx", False),
    ("+91 98765 xxxxx", False),
    ("+55 11 98xxx-xxxx", False),
    ("+81 3-3234-xxxx", False),
    ("0041 79 234 xx xx", False),
    ("+34 612 xxx xxx", False),
    ("+39 347 xxx xxxx", False),
    ("+61 412 xxx xxx", False),
    ("212 nxn xxxx", True),
    ("212nxnxxxx", True),
    ("612xxxxxx", True),
)


def _phone(rng):
    form, said = rng.choice(PHONES)
    value = _digits(rng, form)
    frames = [("Call me at ", " after six."), ("Phone: ", ""), ("tel ", ", thanks."), ("My mobile number is ", ".")]
    if not said:
        frames += [("You reach us under ", "."), ("(", ")"), ("", " was on the note.")]
    before, after = rng.choice(frames)
    if before == "(" and value.startswith("("):
        before, after = "", ""
    if rng.random() < 0.05:
        value = value.translate({ord("0") + i: chr(0xFF10 + i) for i in range(10)})
    return before, value, after


CARDS = (("4", 16, (4, 4, 4, 4)), ("51", 16, (4, 4, 4, 4)), ("2345", 16, (4, 4, 4, 4)), ("37", 15, (4, 6, 5)))
CARDS += (("6011", 16, (4, 4, 4, 4)), ("36", 14, (4, 6, 4)), ("3530", 16, (4, 4, 4, 4)))


def _card(rng):
    prefix, length, groups = rng.choice(CARDS)
    digits = prefix + _pick(rng, string.digits, length - len(prefix) - 1)
    digits += next(str(check) for check in range(10) if _luhn_sum(digits + str(check)) % 10 == 0)
    if separator := rng.choice(("", " ", "-")):
        parts, start = [], 0
        for size in groups:
            parts.append(digits[start : start + size])
            start += size
        digits = separator.join(parts)
    before, after = rng.choice(
        (("Card ", " exp 09/27."), ("I paid with ", "."), ("card number:", ", cvc 123"), ("", ""))
    )
    return before, digits, after


def _luhn_sum(digits):
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total


IBANS = {"DE": "x" * 18, "GB": "NWBK" + "x" * 14, "FR": "x" * 23, "NL": "ABNA" + "x" * 10, "ES": "x" * 20}
IBANS |= {"IT": "X" + "x" * 22, "CH": "x" * 17, "NO": "x" * 11, "PL": "x" * 24, "MT": "MALT" + "x" * 23}


def _iban(rng):
    country = rng.choice(sorted(IBANS))
    account = _digits(rng, IBANS[country])
    number = "".join(str(int(c, 36)) for c in account + country) + "00"
    value = f"{country}{98 - int(number) % 97:02d}{account}"
    if rng.random() < 0.6:
        value = " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    elif rng.random() < 0.2:
        value = value.lower()
    before, after = rng.choice((("IBAN: ", "."), ("Please transfer to ", " today."), ("(", ")"), ("Konto ", ", danke")))
    return before, value, after


ALNUM = string.ascii_letters + string.digits


def _secret(rng):
    return rng.choice(
        (_aws, _github, _gitlab, _slack, _stripe, _google, _sk, _jwt, _pem, _url, _password, _said_password, _key)
    )(rng)


def _framed(rng, value):
    before, after = rng.choice((("Use ", "."), ("token=", ""), ('"', '"'), ("Authorization: Bearer ", ""), ("`", "`")))
    return before, value, after


def _aws(rng):
    return _framed(rng, rng.choice(("AKIA", "ASIA")) + _pick(rng, string.ascii_uppercase + "234567", 16))


def _github(rng):
    if rng.random() < 0.3:
        return _framed(rng, f"github_pat_{_pick(rng, ALNUM, 22)}_{_pick(rng, ALNUM, 59)}")
    return _framed(rng, f"gh{rng.choice('pousr')}_{_pick(rng, ALNUM, 36)}")


def _gitlab(rng):
    return _framed(rng, f"glpat-{_pick(rng, ALNUM + '-_', 19)}a")


def _slack(rng):
    return _framed(rng, f"xoxb-{_digits(rng, 'x' * 12)}-{_pick(rng, ALNUM, 24)}")


def _stripe(rng):
    return _framed(rng, f"{rng.choice('sr')}k_live_{_pick(rng, ALNUM, 24)}")


def _google(rng):
    return _framed(rng, f"AIza{_pick(rng, ALNUM + '-_', 34)}Q")


def _sk(rng):
    return _framed(rng, rng.choice(("sk-", "sk-proj-", "sk-ant-api03-")) + _pick(rng, ALNUM, 40))


def _jwt(rng):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": _digits(rng, "x" * 10), "name": rng.choice(FIRST)}
    return _framed(rng, f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{_pick(rng, ALNUM + '-_', 42)}A")


def _pem(rng):
    lines = "\n".join(_pick(rng, ALNUM + "+/", 64) for _ in range(rng.randint(3, 25)))
    kind = rng.choice(("RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "))
    return "\n", f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}==\n-----END {kind}PRIVATE KEY-----", "\n"


def _url(rng):
    scheme = rng.choice(("postgresql://", "https://", "redis://", "mongodb+srv://", "amqp://"))
    return f"{scheme}{rng.choice(('app', 'root', ''))}:", _pick(rng, ALNUM + "!-_.", 11) + "k", "@db.internal:5432/x"


def _any_password(rng):
    return rng.choice(("Blau", "hunter", "Tr0ub", "qwert")) + _digits(rng, "nx") + _pick(rng, ALNUM + "!#%+?", 5) + "z"


def _password(rng):
    before, after = rng.choice(
        (
            ("password=", "\n"),
            ("DB_PASSWORD='", "'"),
            ('"password": "', '", "user": 1'),
            ("pwd: ", " ok"),
            ("passwd => ", ""),
        )
    )
    return before, _any_password(rng), after


def _said_password(rng):
    return rng.choice(("my password is ", "The password was ", "Passwort / Password: ")), _any_password(rng), " btw"


def _key(rng):
    before, after = rng.choice(
        (
            ("api_key = '", "'"),
            ("aws_secret_access_key=", "\n"),
            ("X-API-Key: ", ""),
            ("ACCESS_TOKEN=", ";"),
            ('"client_secret": "', '"'),
        )
    )
    return before, _pick(rng, rng.choice((ALNUM, "0123456789abcdef", ALNUM + "+/")), 38) + "7a", after


_MAKERS = {"email": _email, "phone": _phone, "card": _card, "iban": _iban, "secret": _secret}
