"""E-mail addresses in a text."""

import re
from collections.abc import Iterator

from pipelines.data.privacy.lookalikes import Span

# Letters of scripts that put spaces between words: where none stand, an address ends with ASCII.
_LETTER = r"0-9A-Za-z\u00c0-\u1fff"
_LOCAL_BACKWARDS = re.compile(rf"[{_LETTER}_.%+'-]+|[\w.%+'-]+")
_DOMAIN = re.compile(
    rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,62}})\.){{1,10}}[A-Za-z\u00c0-\u1fff]{{2,24}}(?![0-9A-Za-z\u00c0-\u1fff(-])"
)
_DOMAIN_ANYWHERE = re.compile(r"(?:[^\W_][\w-]{0,62}\.){1,10}[^\W\d_]{2,24}(?![\w(-])")
_FILES = frozenset(
    ("css", "gif", "html", "ico", "jpeg", "jpg", "js", "json", "pdf", "png", "svg", "webp", "xml", "yml")
)
"""Ends of file names that are no top-level domain: `icon@2x.png`."""

LONGEST_LOCAL = 64
"""RFC 5321, section 4.5.3.1.1."""
LONGEST_LOGIN = 300
"""Characters before the `@` of a URL among which its beginning is looked for."""


def find_emails(text: str) -> Iterator[Span]:
    """The addresses in `text`, which is folded to ASCII where it looks like it.

    Taken: `local@domain.tld` in letters of any script, addresses at example.org too. Left: `user@host` without a
    dot, a method call (`a@b.dot(c)`), `icon@2x.png`, the login of a repository (`git@host:path`) and what stands
    before the `@` of a URL (a password there is a secret).
    """
    at = text.find("@")
    while at >= 0:
        if span := _around(text, at):
            yield span
        at = text.find("@", at + 1)


def _around(text: str, at: int) -> Span | None:
    """The address whose `@` stands there."""
    before = text[max(0, at - LONGEST_LOGIN) : at]
    local = _LOCAL_BACKWARDS.match(before[::-1], 0, LONGEST_LOCAL)
    if local is None:
        return None
    domain = _DOMAIN.match(text, at + 1) or _DOMAIN_ANYWHERE.match(text, at + 1)
    if domain is None or domain[0].rpartition(".")[2].lower() in _FILES:
        return None
    name = local[0][::-1].lstrip(".%+'-")
    start = at - len(name)
    if not name or (name == "git" and text[domain.end() : domain.end() + 1] in (":", "/")):
        return None
    if "://" in before and ":" in (login := before.rpartition("://")[2]) and not re.search(r"[\s/]", login):
        return None
    return start, domain.end()
