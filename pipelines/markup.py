"""HTML from data, safe by construction: templates are literals, every value is escaped, controls are shown."""

import math
import re

from markupsafe import Markup

_HIDDEN = re.compile(
    # Control characters (ANSI codes start with one) and those that reorder or hide the text around them.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)


def visible(text: object) -> str:
    r"""`text` with control, reordering and zero-width characters made visible: ESC becomes \x1b."""
    return _HIDDEN.sub(_show, str(text).replace("\r\n", "\n"))


def _show(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\x{point:02x}" if point <= 0xFF else f"\\u{point:04x}"


def html(template: str, **values: object) -> Markup:
    """`template` (a literal) with `values` escaped and made visible; numbers and Markup go in as they are."""
    safe = {n: value if isinstance(value, Markup | int | float) else visible(value) for n, value in values.items()}
    return Markup(template).format(**safe)


def joined(parts: list[Markup]) -> Markup:
    """The parts one after the other."""
    return Markup("").join(parts)


def number(value: float | int, digits: int = 4) -> str:
    """A figure for people: thousands apart, at most `digits` significant decimals."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def share(part: float) -> str:
    """A share for people: `0 %`, `0.04 %`, `12.3 %`."""
    percent = 100 * part
    return f"{percent:.2g} %" if 0 < percent < 1 else f"{percent:.1f} %".replace(".0 %", " %")
