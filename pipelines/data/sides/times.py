"""When examples were made, as numbers that can be compared."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipelines.data.corpus import Corpus
from pipelines.data.sides.drawing import NEVER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MILLISECONDS_FROM = 1e11
"""A larger number is no count of seconds of this or the next thousand years: it counts milliseconds."""


def microseconds(text: str) -> int:
    """Microseconds since 1970 (UTC) of an ISO date or time, or of a number of seconds or milliseconds since then.

    A time without a zone is taken as UTC. Raises ValueError for anything else.
    """
    if (count := _number(text)) is not None and 1e8 <= abs(count) < 1e14:
        return round(count * (1e3 if abs(count) >= _MILLISECONDS_FROM else 1e6))
    # A year or a day written without marks (20240131) is no count of seconds.
    moment = datetime.fromisoformat(text)
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def times_of(corpus: Corpus, rows: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Of each of `rows` when it was made, in microseconds; NEVER where it does not say.

    Raises UserError with the values that are no times.
    """
    import numpy as np

    codes, values = corpus.codes("created_at")
    found, wrong = np.full(len(values) + 1, NEVER), []
    for number, value in enumerate(values):
        try:
            found[number] = microseconds(value)
        except (ValueError, OverflowError):
            wrong.append((number, value))
    held = set(codes[rows].tolist())
    wrong = [(number, value) for number, value in wrong if number in held]
    if wrong:
        row = rows[codes[rows] == wrong[0][0]][:1]
        place = corpus.take(row, ["file", "position"]).to_pylist()[0]
        shown = ", ".join(repr(value)[:40] for _, value in wrong[:5])
        raise UserError(
            f"split.by_time: {len(wrong):,} different values of created_at are no times: {shown} "
            f"(first in {place['file']} row {place['position']}).",
            "Write them as 2024-01-31 or 2024-01-31T12:00:00Z.",
        )
    return found[codes[rows]]
