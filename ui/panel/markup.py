"""What the pages write with: HTML that is safe by construction, and times for people.

`st.html` sanitises once more in the browser; nothing here relies on it.
"""

from datetime import UTC, datetime

from pipelines.markup import html, joined, number, share, visible

__all__ = ["age", "duration", "html", "joined", "number", "share", "visible"]


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, for people: `12 s ago`, `3 min ago`, `2 h ago`, `5 days ago`."""
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {'day' if unit == 'days' and count == 1 else unit} ago"
    return f"{int(seconds)} s ago"


def duration(seconds: float) -> str:
    """A length of time for people: `0.4 s`, `48 s`, `7 min 12 s`, `3 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
