"""Browsing the rows: filters in the address, a table of one page, the conversation of the row that is picked."""

import streamlit as st

from pipelines.data.display.browse import Filters, Row
from pipelines.data.display.view import NO_SIDE
from pipelines.fingerprint import fingerprint, short
from ui.panel import data_backend, data_rows, frame, report_view
from ui.panel.data_backend import Offered, Opened
from ui.panel.markup import html, number, visible

LIMIT = 25
PREVIEW = 160
"""Characters of a text in the table."""
NAMES = ("source", "label", "language", "suspect", "private", "side")


def browse(data: Opened) -> None:
    """The view."""
    offset, picked = frame.number_in_address("offset"), frame.in_address("row")
    found = data_backend.offered(data)
    frame.notice(found)
    if found.value is not None:
        _filters(found.value)
    filters = Filters(**{name: frame.in_address(name) for name in NAMES}, contains=frame.in_address("contains"))
    page = data_backend.page(data, filters, max(offset, 0), LIMIT)
    frame.notice(page)
    if page.value is None:
        return
    if not page.value.rows:
        st.html('<span class="quiet">No row passes these filters.</span>')
    else:
        data_rows.pager(max(offset, 0), len(page.value.rows), page.value.total, page.value.more, size=LIMIT)
        _table(page.value.rows, picked)
    if picked:
        _row(data)


def _filters(offered: Offered) -> None:
    choices = {name: values for name, values in offered.columns.items() if values}
    choices |= {"suspect": [("any", 0), *offered.suspects]} if offered.suspects else {}
    choices |= {"private": [("any", 0), *offered.private]} if offered.private else {}
    choices |= {"side": [(side, 0) for side in (*offered.sides, NO_SIDE)]} if offered.sides else {}
    with st.container(horizontal=True, key="filters", vertical_alignment="bottom"):
        for name, values in choices.items():
            _filter(name, dict(values))
        text = frame.in_address("contains") or ""
        # The key holds the value: when the address changes (back, a link), the widget follows it.
        key = f"contains:{short(fingerprint(text))}"
        st.text_input("text contains", text, key=key, on_change=_follow, args=("contains", key), max_chars=200)


def _filter(name: str, values: dict[str, int]) -> None:
    chosen = frame.in_address(name)
    options = [*([] if chosen is None or chosen in values else [chosen]), *values]
    key = f"{name}:{short(fingerprint(chosen))}"
    st.selectbox(
        name,
        options,
        index=options.index(chosen) if chosen else None,
        key=key,
        format_func=lambda value: visible(f"{value} ({number(values[value])})" if values.get(value) else value),
        placeholder="all",
        on_change=_follow,
        args=(name, key),
        width=150,
    )


def _follow(name: str, key: str) -> None:
    """The address takes what was chosen, and begins with the first page."""
    chosen = st.session_state[key]
    st.query_params.from_dict(data_rows.here(**{name: chosen or None, "offset": None, "row": None}))


def _table(rows: tuple[Row, ...], picked: str | None) -> None:
    numbers = [data_rows.name(row.number) for row in rows]
    selected = [numbers.index(picked)] if picked in numbers else []
    event = st.dataframe(
        [_line(row) for row in rows],
        # Rows are chosen by position: when the page or the address changes, so does the widget.
        key=f"rows-{short(fingerprint(numbers, picked))}",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": selected}},
        height=35 + 32 * min(len(rows), 10),
        row_height=32,
        hide_index=True,
        placeholder="",
        column_config={
            "prompt": st.column_config.TextColumn("prompt", width="large"),
            "answer": st.column_config.TextColumn("answer", width="large"),
            "cluster": st.column_config.NumberColumn(
                "in cluster", help="rows that repeat one another, itself included"
            ),
        },
    )
    chosen = [numbers[place] for place in event["selection"]["rows"] if place < len(numbers)]
    if chosen != ([picked] if selected else []):
        st.query_params.from_dict(data_rows.here(row=chosen[0] if chosen else None))
        st.rerun()


def _line(row: Row) -> dict[str, object]:
    prompts = [turn["content"] for turn in row.turns if turn["role"] == "user"]
    answers = [turn["content"] for turn in row.turns if turn["role"] == "assistant"]
    told: dict[str, object] = {
        "row": row.number + 1,
        "prompt": visible(prompts[0][:PREVIEW] if prompts else ""),
        "answer": visible(answers[-1][:PREVIEW] if answers else ""),
    }
    told |= {name: visible(row.facts[name]) for name in ("label", "source", "group") if name in row.facts}
    if row.side:
        told["side"] = row.side.replace("_", " ")
    if row.cluster_rows > 1:
        told["cluster"] = row.cluster_rows
    if row.suspicions or row.private:
        told["suspect of"] = ", ".join(dict.fromkeys((*(one.kind for one in row.suspicions), *row.private)))
    return told


def _row(data: Opened) -> None:
    found = data_backend.row(data, frame.number_in_address("row") - 1)
    frame.notice(found)
    row = found.value
    if row is None:
        if not found.problem:
            frame.not_found("row", frame.in_address("row") or "")
        return
    frame.heading(f"Row {row.number + 1:,}", data_rows.place(row))
    left, right = st.columns([1.65, 1], gap="large")
    with left:
        st.html(data_rows.conversation(row))
    with right:
        if row.suspicions or row.private:
            st.html(data_rows.suspicions(row))
        if row.cluster_rows > 1:
            data_rows.go_here(
                f"One of {row.cluster_rows:,} rows of a cluster",
                "to-cluster",
                view="clusters",
                cluster=data_rows.name(row.cluster),
                row=None,
                offset=None,
            )
        st.html(report_view.facts({name: str(value) for name, value in row.facts.items()}))
        st.html(html('<div class="mono quiet break">{id}</div>', id=row.id))
