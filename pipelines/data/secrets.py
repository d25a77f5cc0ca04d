"""Keys, tokens and passwords in a text."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from pipelines.data.lookalikes import Span

_TOKENS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (tuple(markers.split()), re.compile(r"(?<![0-9A-Za-z])" + pattern + r"(?![0-9A-Za-z])"))
    # What stands in every such token, and its form, as the services document them.
    for markers, pattern in (
        ("AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"),
        ("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[0-9A-Za-z]{36,255}"),
        ("github_pat_", r"github_pat_[0-9A-Za-z_]{22,255}"),
        ("glpat- gldt- glrt- glptt- glcbt-", r"gl(?:pat|dt|rt|ptt|cbt)-[0-9A-Za-z_.-]{20,255}"),
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
    )
)
_SK = re.compile(r"(?<![0-9A-Za-z_-])(?:sk|gsk|pplx|xai|r8)[_-][0-9A-Za-z_-]{20,255}+")
_JWT = re.compile(r"(?<![0-9A-Za-z_-])eyJ[0-9A-Za-z_-]{8,}+\.eyJ[0-9A-Za-z_-]{2,}+(?:\.[0-9A-Za-z_-]*+)?")
_BOT = re.compile(r"(?<![0-9A-Za-z])[0-9]{8,10}:AA[0-9A-Za-z_-]{32,33}(?![0-9A-Za-z_-])")
_PEM = re.compile(r"-----BEGIN (?:[0-9A-Z]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[0-9A-Za-z+/=\s,:.\\-](?!----))*+")
_PEM_END = re.compile(r".?-----END (?:[0-9A-Z]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----", re.DOTALL)

_LOGIN = re.compile(r"[^\s:/@?#\"'<>]{0,128}:([^\s/@<>\"']{1,256})@[^\s@]")
_MARKERS = ("passw", "pwd", "passphrase", "passcode", "secret", "token", "key", "credential", "bearer")
_NAME = re.compile(
    r"(?:password|passwd|passphrase|passcode|pwd|secret|credential|token|bearer|(?:api|access|private|auth|account|"
    r"client|signing|encryption|license|storage|service)[_ -]?key)"
    r"[a-z0-9_-]{0,24}[\"'`\])*]{0,3}"
    r"(?:[ \t]{0,3}(?::=|=>|={1,2}|:|[ \t](?:is|was)\b)[ \t]{0,3}|(?<=bearer)[ \t]{1,3})"
    r"(?:bearer[ \t]|basic[ \t])?[*]{0,2}"
)
_KEYS = re.compile(r"token|bearer|.*key")
_QUOTED = re.compile(r"[rbuf]{0,2}(?P<quote>[\"'`])(?P<value>[^\s\"'`]{6,256})(?P=quote)", re.IGNORECASE)
_BARE = re.compile(r"(?P<value>(?:[^\s\"'`,;()\[\]{}|&]|&(?![\w-]{1,20}=)){8,256})(?![^\s\"',;)\]}|&`])")
_CODE = re.compile(
    r"[A-Za-z_]\w*(?:(?:\.|->|::|/)[A-Za-z_]\w*)+|_*[a-z]+\d{0,2}(?:_+[a-z\d]+)+|[A-Z]+\d{0,2}(?:_[A-Z\d]+)+"
    r"|[A-Za-z]+\d?|[a-z]+(?:-[a-z\d]+)+"
)
_PLACEHOLDER = re.compile(
    r"<[\w ./-]*>|\$\{?\w|\{\w|%[(s]|\.{3}|\*{3}|x{4}|0{6}|123456789|abcdef|your|change[_-]?me|example|placeholder|"
    r"redacted|dummy|insert|^(?:[./&~@]|https?:|file:|[a-z]+\()",
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
    if values := {text[start:end] for start, end in found if end - start >= 8}:
        for match in _WORD.finditer(text):
            if (word := match[0].rstrip(".!?:")) in values:
                yield match.start(), match.start() + len(word)


def entropy(value: str) -> float:
    """Shannon's, of the characters' frequencies, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values()) if value else 0.0


def _known(text: str) -> Iterator[Span]:
    """Tokens whose form says what they are."""
    if len(max(text.split(), key=len, default="")) < SHORTEST:
        return
    for markers, pattern in _TOKENS:
        if any([marker in text for marker in markers]):
            yield from (match.span() for match in pattern.finditer(text))
    if "eyJ" in text:
        yield from (match.span() for match in _JWT.finditer(text))
    if ":AA" in text:
        yield from (match.span() for match in _BOT.finditer(text))
    if any([marker in text for marker in ("sk-", "gsk_", "pplx-", "xai-", "r8_")]):
        for match in _SK.finditer(text):
            if _is_random(match[0]) and not _PLACEHOLDER.search(match[0]):
                yield match.span()


def _pem(text: str) -> Iterator[Span]:
    """Private keys with their first and last line; without a last line, as far as it looks like one."""
    if "PRIVATE KEY" not in text:
        return
    end = 0
    for match in _PEM.finditer(text):
        if match.start() < end:
            continue
        body = _PEM_BODY.match(text, match.end())
        end = body.end() if body else match.end()
        if last := _PEM_END.match(text, end):
            end = last.end()
        if end - match.end() > 16:
            yield match.start(), end


def _in_urls(text: str) -> Iterator[Span]:
    """The passwords of `scheme://user:password@host`."""
    at = text.find("://")
    while at >= 0:
        login = _LOGIN.match(text, at + 3)
        if login and not _PLACEHOLDER.search(login[1]) and login[1].lower() not in _NO_PASSWORDS:
            yield login.span(1)
        at = text.find("://", at + 3)


_NO_PASSWORDS = frozenset(("pass", "passwd", "password", "pw", "pwd", "secret", "token", "port", "user"))


def _assigned(text: str) -> Iterator[Span]:
    """Values of names that tell what they hold."""
    if not any([sign in text for sign in (":", "=", " is ", " was ", "earer ")]):
        return
    lower = text.lower()
    if len(lower) != len(text) or not any([marker in lower for marker in _MARKERS]):
        return
    for name in _NAME.finditer(lower):
        quoted = _QUOTED.match(text, name.end())
        if match := quoted or _BARE.match(text, name.end()):
            value = match["value"].rstrip(".!?:*")
            if _is_secret(value, bare=quoted is None, key=bool(_KEYS.match(name[0]))):
                yield match.start("value"), match.start("value") + len(value)


def _is_secret(value: str, *, bare: bool, key: bool) -> bool:
    """Whether a value looks like a key, or like a password."""
    if _PLACEHOLDER.search(value) or (bare and (_CODE.fullmatch(value) or "(" in value)):
        return False
    return _is_random(value) if key else _is_password(value)


def _is_random(value: str) -> bool:
    """Whether nobody would remember it: 16 characters with letters and digits, and KEY_BITS."""
    return len(value) >= 16 and _mixed(value) and entropy(value) >= KEY_BITS


def _is_password(value: str) -> bool:
    """Whether it could be one: 6 characters with letters and digits, and PASSWORD_BITS."""
    return len(value) >= 6 and _mixed(value) and entropy(value) >= PASSWORD_BITS


def _mixed(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
