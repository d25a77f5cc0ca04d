"""Personal data and secrets in a text: found, masked, and shown without being given away.

Everything here takes one text and returns plain values; time is linear in the text's length, whatever stands in it.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from pipelines.data.privacy import lookalikes
from pipelines.data.privacy.emails import find_emails
from pipelines.data.privacy.names import find_names, load_names
from pipelines.data.privacy.numbers import find_cards, find_ibans
from pipelines.data.privacy.phones import find_phones
from pipelines.data.privacy.secrets import find_secrets

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["email", "phone", "card", "iban", "secret", "name"]
RULED: tuple[Kind, ...] = get_args(Kind)[:-1]
"""The kinds that rules find; `name` needs a model."""
AROUND = 30
"""Characters of a text that a sample shows on each side."""

_RULES = {
    "email": find_emails,
    "phone": find_phones,
    "card": find_cards,
    "iban": find_ibans,
    "secret": find_secrets,
    "name": find_names,
}
_SHOWN = {"email": (1, 0), "phone": (0, 1), "card": (0, 1), "iban": (2, 0), "secret": (0, 0), "name": (1, 0)}
"""Characters that a sample shows of a found thing: of its beginning and of its end. Of a secret none."""


@dataclass(frozen=True, order=True)
class Found:
    """A piece of a text that is somebody's, or secret: `text[start:end]`."""

    kind: str
    start: int
    end: int


def require_kinds(kinds: Collection[str]) -> None:
    """Raise UserError where something that these kinds need is not installed: ask before a long pass."""
    if "name" in kinds:
        load_names()


def find_private(text: str, kinds: Collection[str] = RULED) -> list[Found]:
    """What is private in `text`, in its order; two that overlap are one, of the longer one's kind.

    What each kind takes, and what it leaves, stands at its rule (`find_emails`, `find_phones`, `find_cards`,
    `find_ibans`, `find_secrets`, `find_names`). Digits and letters of other widths and scripts count as what they
    look like, and characters without a width do not interrupt. Not found: what is spelt out ("joe at example dot
    org"), encoded (base64, percent signs) or spread over lines.
    """
    plain, places = lookalikes.fold(text)
    found = [Found(kind, *span) for kind in _RULES if kind in kinds for span in _RULES[kind](plain)]
    if not found:
        return []
    if places is not None:
        found = [Found(each.kind, places[each.start], places[each.end - 1] + 1) for each in found]
    return _joined(found)


def mask_private(text: str, kinds: Collection[str] = RULED) -> str:
    """`text` with each private piece replaced by its kind, as in `<email>`; `find_private` finds nothing in it."""
    # A piece that touched another one may be found only now. Each round leaves less that is not a mask.
    while found := find_private(text, kinds):
        text = _replaced(text, [(each.start, each.end, f"<{each.kind}>") for each in found])
    return text


def masked_sample(text: str, found: Found) -> str:
    """The words around one piece, which itself is shown as in `<email j***>`; see `masked_samples`."""
    return masked_samples(text, [found])[0]


def masked_samples(text: str, founds: Sequence[Found]) -> list[str]:
    """For each piece the words around it, on one line, and in the middle its kind and at most two of its characters.

    Whatever else a rule finds in the text is masked as well, of whatever kind; of a secret nothing is shown.
    """
    others = _joined([*founds, *find_private(text, RULED)])
    starts = [each.start for each in others]
    return [_sample(text, found, others, starts) for found in founds]


@dataclass(frozen=True)
class Masking:
    """How what is private is replaced where it is not to be kept."""

    kinds: Collection[str] = ()
    """What is replaced; nothing where there are none."""
    key: bytes = b""
    """Secret, and the same for all that is to be compared: without it nobody finds out by trying whose name it was."""

    def text(self, text: str) -> str:
        """See `mask_private`."""
        return mask_private(text, self.kinds)

    def name(self, name: str, column: str = "group") -> str:
        """What equal cells of `column` have in common is kept, who it was is not: `<email> kfbmcapd...`.

        The word behind the masked name is BLAKE2b of the name under the key, 64 bits as letters: with digits it
        might be taken for something private itself. A name in which nothing is found stays as it is.
        """
        masked = mask_private(name, kinds_in(column, self.kinds))
        if masked == name:
            return name
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=self.key, digest_size=8).hexdigest()
        return f"{masked} {digest.translate(_LETTERS)}"


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")

MAKERS = ("annotator", "collector")
"""Columns that say who made an example: a plain name is what they are there for."""


def kinds_in(column: str, kinds: Collection[str]) -> tuple[str, ...]:
    """The kinds that are looked for in the cells of a column."""
    return tuple(kind for kind in kinds if kind != "name" or column not in MAKERS)


def private_column(texts_per_row: Sequence[Sequence[str]], kinds: Collection[str] = RULED) -> "pa.Array":
    """For each row, of its texts, the pieces found: a JSON list of {"kind", "masked"}, null where there are none."""
    import pyarrow as pa

    return pa.array([_noted(texts, kinds) for texts in texts_per_row], pa.string())


def _noted(texts: Iterable[str], kinds: Collection[str]) -> str | None:
    """A row's entry of the column."""
    notes: list[dict[str, str]] = []
    for text in texts:
        if founds := find_private(text, kinds):
            samples = masked_samples(text, founds)
            notes += [{"kind": found.kind, "masked": sample} for found, sample in zip(founds, samples, strict=True)]
    return json.dumps(notes) if notes else None


def _joined(found: Iterable[Found]) -> list[Found]:
    """Those that overlap as one, of the kind of the longest: nothing that a rule found stays outside of all."""
    joined: list[Found] = []
    longest = 0
    for each in sorted(found, key=lambda each: (each.start, -each.end)):
        length = each.end - each.start
        if not joined or each.start >= joined[-1].end:
            joined.append(each)
            longest = length
            continue
        last = joined.pop()
        joined.append(Found(each.kind if length > longest else last.kind, last.start, max(last.end, each.end)))
        longest = max(longest, length)
    return joined


def _replaced(text: str, replacements: Iterable[tuple[int, int, str]]) -> str:
    """`text` with the pieces (start, end), in their order and apart, replaced."""
    parts, last = [], 0
    for start, end, new in replacements:
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])


def _sample(text: str, found: Found, others: Sequence[Found], starts: Sequence[int]) -> str:
    """One line around `found`; `others` are all that must not be shown, apart and in order, and `starts` theirs."""
    left, right = max(0, found.start - AROUND), min(len(text), found.end + AROUND)
    hidden = []
    for each in others[max(0, bisect_right(starts, left) - 1) :]:
        if each.start >= right:
            break
        if each.end > left:
            own = each.start <= found.start < each.end
            hidden.append((each.start, each.end, _shape(text, found) if own else f"<{each.kind}>"))
    # A piece at the border is masked whole: half an address is still somebody's.
    left = min([left, *(start for start, _, _ in hidden)])
    right = max([right, *(end for _, end, _ in hidden)])
    shown = _replaced(text[left:right], [(start - left, end - left, new) for start, end, new in hidden])
    return _one_line(("…" if left else "") + shown + ("…" if right < len(text) else ""))


def _shape(text: str, found: Found) -> str:
    """A found thing as a sample shows it."""
    first, last = _SHOWN[found.kind]
    piece = text[found.start : found.end]
    return f"<{found.kind} {piece[:first]}***{piece[len(piece) - last :]}>"


def _one_line(text: str) -> str:
    """`text` without line breaks and without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
