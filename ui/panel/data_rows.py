"""What the data pages share: an address with its filters, a row's conversation, two texts side by side, paging."""

import streamlit as st
from markupsafe import Markup

from pipelines.data.display.browse import Row
from pipelines.data.display.page_evidence import piece_markup
from pipelines.data.display.side_by_side import differences
from ui.panel import frame
from ui.panel.markup import html, joined, number

TEXT = 20_000
"""Characters of one turn on the page."""


def name(row: int) -> str:
    """A row's number as people and addresses have it: from 1."""
    return str(row + 1)


def here(**changed: str | None) -> dict[str, str]:
    """The present address with these parameters changed, or left out where they are None."""
    return frame.address(**{**st.query_params.to_dict(), **changed})


def go_here(label: str, key: str, **changed: str | None) -> None:
    """A link that changes some parameters of the present address."""
    frame.go(label, key, **here(**changed))


def pager(offset: int, shown: int, total: int | None, more: bool, what: str = "rows", *, size: int) -> None:
    """Where one is, and the pages before and after; `shown` rows stand on this page, `size` on a full one."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pager"):
        end = offset + shown if total is None else min(offset + shown, total)
        known = f"of {number(total)}" if total is not None else ""
        first = min(offset + 1, end) if total is not None else offset + 1
        st.html(html('<span class="quiet nums">{a} to {b} {k} {w}</span>', a=first, b=end, k=known, w=what))
        if offset:
            before = max(0, offset - size)
            go_here("Previous", "to-previous", offset=str(before) if before else None, row=None)
        if more:
            go_here("Next", "to-next", offset=str(offset + size), row=None)


def conversation(row: Row) -> Markup:
    """The turns of a row, and the answer that was not preferred."""
    said = [_turn(turn["role"], turn["content"]) for turn in row.turns]
    if row.rejected is not None:
        said.append(_turn("rejected", row.rejected))
    return html('<div class="turns">{said}</div>', said=joined(said))


def _turn(role: str, text: str) -> Markup:
    cut = text if len(text) <= TEXT else text[: TEXT - 1] + "…"
    return html('<div class="turn {k}"><span class="who">{r}</span>{t}</div>', k=_looks(role), r=role, t=cut)


def _looks(role: str) -> str:
    return "user" if role == "user" else ""


def suspicions(row: Row) -> Markup:
    """Why a row is suspect, a line a reason."""
    lines = [
        html(
            '<div class="line"><span class="verdict warning">{kind}</span><span class="quiet nums">{score}</span>'
            "<span>{reason}</span></div>",
            kind=one.kind,
            score=number(one.score),
            reason=one.reason,
        )
        for one in row.suspicions
    ]
    if row.private:
        lines.append(
            html('<div><span class="verdict warning">holds {kinds}</span></div>', kinds=", ".join(row.private))
        )
    return joined(lines)


def place(row: Row) -> str:
    """Where a row stands: its file, its position, its side."""
    told = f"{row.facts.get('file', '')}, row {row.facts.get('position', row.number)}"
    return f"{told}, {row.side.replace('_', ' ')}" if row.side else told


def side_by_side(left: Row, right: Row, notes: tuple[str, str] = ("", "")) -> Markup:
    """Two rows with what one has and the other lacks marked."""
    spans = differences(_text(left), _text(right))
    parts = [
        html(
            '<div><span class="quiet">{place}{note}</span><div class="turn">{text}</div></div>',
            place=place(row),
            note=f", {note}" if note else "",
            text=joined([piece_markup(text, same, kind) for text, same in side]),
        )
        for row, side, kind, note in zip((left, right), spans, ("less", "more"), notes, strict=True)
    ]
    return html('<div class="pair">{parts}</div>', parts=joined(parts))


def _text(row: Row) -> str:
    return "\n".join(turn["content"] for turn in row.turns)[:TEXT]
