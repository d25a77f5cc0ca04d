"""Keys, tokens and passwords in a text."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from pipelines.data.privacy.lookalikes import Span

_TOKENS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (tuple(markers.split()), re.compile(r"(?<![0-9A-Za-z])" + pattern + r"(?![0-9A-Za-z])"))
    # What stands in every such token, and its form, as the services document them.
    for markers, pattern in (
        ("AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"),
        ("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[0-9A-Za-z]{36,255}"),
        ("github_pat_", r"github_pat_[0-9A-Za-z_]{22,255}"),
        (
            "glpat- gldt- glrt- glptt- glcbt-",
            r"gl(?:pat|dt|rt|ptt|cbt)-[0-9A-Za-z_-]{20,255}(?:\.[0-9A-Za-z_-]{2,64}){0,3}",
        ),
        ("xox xapp-", r"(?:xox[abceoprs]|xapp)-[0-9A-Za-z-]{10,255}"),
        ("hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/[0-9A-Za-z/_]{20,255}"),
        ("sk_live_ sk_test_ rk_live_ rk_test_", r"[rs]k_(?:live|test)_[0-9A-Za-z]{16,255}"),
        ("whsec_", r"whsec_[0-9A-Za-z+/]{24,255}=?"),
        ("AIza", r"AIza[0-9A-Za-z_-]{35}"),
        ("GOCSPX-", r"GOCSPX-[0-9A-Za-z_-]{24,64}"),
        ("ya29.", r"ya29\.[0-9A-Za-z_-]{20,512}"),
        ("hf_", r"hf_[0-9A-Za-z]{30,64}"),
        ("npm_", r"npm_[0-9A-Za-z]{36}"),
        ("pypi-", r"pypi-[0-9A-Za-z_-]{50,512}"),
        ("dop_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
        ("SG.", r"SG\.[0-9A-Za-z_-]{16,64}\.[0-9A-Za-z_-]{16,64}"),
        ("eyJ", r"(?<![_-])eyJ[0-9A-Za-z_-]{8,}+\.eyJ[0-9A-Za-z_-]{2,}+(?:\.[0-9A-Za-z_-]*+)?"),
        (":AA", r"[0-9]{8,10}:AA[0-9A-Za-z_-]{32,33}"),
    )
)
_LOOSE_MARKERS = ("sk-", "gsk_", "pplx-", "xai-", "r8_")
_LOOSE = re.compile(r"(?<![0-9A-Za-z_-])(?:sk|gsk|pplx|xai|r8)[_-][0-9A-Za-z_-]{20,255}+")
"""Beginnings that words have too (`sk-learn`): what follows must be random."""
_MARKED = re.compile("|".join(re.escape(m) for m in (*_LOOSE_MARKERS, *(m for markers, _ in _TOKENS for m in markers))))
_PEM = re.compile(r"-----BEGIN (?:[0-9A-Z]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[0-9A-Za-z+/=\s,:.\\-](?!----))*+")
_PEM_ENCODED = re.compile(r"(?:\s*+[0-9A-Za-z+/=\\]{16,}+)*+")
_PEM_END = re.compile(r".?-----END (?:[0-9A-Z]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----", re.DOTALL)

_NO_PASSWORDS = frozenset(
    ("pass", "passwd", "password", "passphrase", "pw", "pwd", "secret", "test", "testing", "token", "port", "user")
)
"""What stands in the place of a password in documentation."""
_LOGIN = re.compile(r"[^\s:/@?#\"'<>]{0,128}:([^\s/@<>\"']{1,256})@[^\s@]")
_NAMES = ("password", "passwd", "passphrase", "passcode", "pwd", "secret", "credential", "token", "bearer", "key")
_KEY_OF = ("api", "access", "private", "auth", "account", "client", "signing", "encryption", "storage", "service")
_BEFORE_KEY = tuple(word + space for word in _KEY_OF for space in ("", "_", "-", " "))
"""Of `key` alone are the keys of tables and keyboards."""
_IS = re.compile(
    r"[a-z0-9_-]{0,24}[\"'`\])*]{0,3}"
    r"(?:[ \t]{0,3}(?::=|=>|={1,2}|:|[ \t](?:is|was)\b)[ \t]{0,3}|(?<=bearer)[ \t]{1,3})"
    r"(?:bearer[ \t]|basic[ \t])?[*]{0,2}"
)
_QUOTED = re.compile(r"[rbuf]{0,2}(?P<quote>[\"'`])(?P<value>[^\s\"'`]{6,256})(?P=quote)", re.IGNORECASE)
_BARE = re.compile(r"(?P<value>(?:[^\s\"'`,;()\[\]{}|&]|&(?![\w-]{1,20}=)){8,256})(?![^\s\"',;)\]}|&`])")
_CODE = re.compile(
    r"[A-Za-z_]\w*(?:(?:\.|->|::)[A-Za-z_]\w*)+"  # a.b.c
    r"|_*[a-z]+\d{0,2}(?:_+[a-z\d]+)+|[A-Z]+\d{0,2}(?:_[A-Z\d]+)+|[a-z]+(?:-[a-z\d]+)+|[A-Za-z]+\d?"  # names
    r"|[a-z_]+(?:/[a-z\d_.]+)+|(?:[./&~@]|https?:|file:).*"  # paths
)
_PLACEHOLDER = re.compile(
    r"<[\w ./-]*>|\$\{?\w|\{\w|%\(|^%s|\.{3}|\*{3}|x{4}|0{6}|123456789|abcdef|your|change[_-]?me|example|placeholder|"
    r"redacted|dummy|insert",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\s\"'`,;()\[\]{}<>]{8,}")

SHORTEST = 15
"""Characters of the shortest token whose form says what it is."""
KEY_BITS = 3.0
"""Shannon entropy of a key's characters, in bits each: random hexadecimal digits have some 3.5, words below 3."""
PASSWORD_BITS = 2.5
"""The same for passwords, which are shorter."""


def find_secrets(text: str) -> Iterator[Span]:
    """What opens a door to whoever reads it.

    Taken: keys and tokens in the form of AWS, GitHub, GitLab, Slack, Stripe, Google, OpenAI and Anthropic, Hugging
    Face, npm, PyPI, SendGrid, DigitalOcean and Telegram; JSON web tokens; private keys in PEM; the password in a URL;
    after a name such as `password`, `api_key` or `token` a value with digits and letters that is not code, a
    placeholder or a word; and every further place of such a value. Left: public keys, hashes without such a name,
    passwords without a digit.
    """
    found = [*_known(text), *_pem(text), *_in_urls(text), *_assigned(text)]
    yield from found
    if values := {value for start, end in found if len(value := text[start:end]) >= 8 and _is_password(value)}:
        for match in _WORD.finditer(text):
            if (word := match[0].rstrip(".!?:")) in values:
                yield match.start(), match.start() + len(word)


def entropy(value: str) -> float:
    """Shannon's, of the characters' frequencies, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values()) if value else 0.0


def _known(text: str) -> Iterator[Span]:
    """Tokens whose form says what they are."""
    words = [word for word in text.split() if len(word) >= SHORTEST]
    if not words:
        return
    # Markers are looked for where a token would fit: most texts have few such words.
    long = " ".join(words)
    if not _MARKED.search(long):
        return
    for markers, pattern in _TOKENS:
        if any([marker in long for marker in markers]):
            yield from (match.span() for match in pattern.finditer(text))
    if any([marker in long for marker in _LOOSE_MARKERS]):
        for match in _LOOSE.finditer(text):
            if _is_random(match[0]) and not _PLACEHOLDER.search(match[0]):
                yield match.span()


def _pem(text: str) -> Iterator[Span]:
    """Private keys with their first and last line; without a last line, what is encoded."""
    if "PRIVATE KEY" not in text:
        return
    end = 0
    for first in _PEM.finditer(text):
        if first.start() < end:
            continue
        body = _PEM_BODY.match(text, first.end())
        last = _PEM_END.match(text, body.end()) if body else None
        if body and last is None:
            body = _PEM_ENCODED.match(text, first.end())
        if body and len(body[0]) >= SHORTEST:
            end = last.end() if last else body.end()
            yield first.start(), end


def _in_urls(text: str) -> Iterator[Span]:
    """The passwords of `scheme://user:password@host`."""
    at = text.find("://")
    while at >= 0:
        login = _LOGIN.match(text, at + 3)
        if login and not _PLACEHOLDER.search(login[1]) and login[1].lower() not in _NO_PASSWORDS:
            yield login.span(1)
        at = text.find("://", at + 3)


def _assigned(text: str) -> Iterator[Span]:
    """Values of names that tell what they hold."""
    if not any([sign in text for sign in (":", "=", " is ", " was ", "earer ")]):
        return
    # The one letter that becomes two in lower case.
    lower = text.replace("\u0130", "I").lower()
    for name in _NAMES:
        at = lower.find(name)
        while at >= 0:
            end = at + len(name)
            sign = _IS.match(lower, end)
            if sign and (name != "key" or lower.endswith(_BEFORE_KEY, max(0, at - 12), at)):
                yield from _value(text, sign.end(), key=name in ("token", "bearer", "key"))
            at = lower.find(name, end)


def _value(text: str, place: int, *, key: bool) -> Iterator[Span]:
    """What is assigned there, when it looks like a key, or else like a password."""
    quoted = _QUOTED.match(text, place)
    match = quoted or _BARE.match(text, place)
    if match is None:
        return
    value = match["value"].rstrip(".!?:*")
    if _PLACEHOLDER.search(value) or (quoted is None and _CODE.fullmatch(value)):
        return
    if _is_random(value) if key else _is_password(value):
        yield match.start("value"), match.start("value") + len(value)


def _is_random(value: str) -> bool:
    """Whether nobody would remember it: 16 characters with letters and digits, and KEY_BITS."""
    return len(value) >= 16 and _mixed(value) and entropy(value) >= KEY_BITS


def _is_password(value: str) -> bool:
    """Whether it could be one: 6 characters with letters and digits, and PASSWORD_BITS."""
    return len(value) >= 6 and _mixed(value) and entropy(value) >= PASSWORD_BITS


def _mixed(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
