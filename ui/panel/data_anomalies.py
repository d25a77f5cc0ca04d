"""The review queue: suspects by kind, the worst first; a person keeps or drops each, with a name and a reason."""

import streamlit as st

from cluster.errors import UserError
from pipelines.data.display.audit_tables import draw_table, tables_of
from pipelines.data.display.browse import Row
from pipelines.review import Choice, Decision
from ui.panel import data_backend, data_rows, frame
from ui.panel.data_backend import Opened, Reviewed
from ui.panel.last_known import Known, Problem
from ui.panel.markup import html, number, visible

LIMIT = 10
SAID = "anomalies-said"
"""Where a decision that could not be recorded leaves its sentence for the page that follows."""


def anomalies(data: Opened) -> None:
    """The view."""
    kind, all_of_them = frame.in_address("suspect"), frame.in_address("decided") == "too"
    offset = max(frame.number_in_address("offset"), 0)
    found = data_backend.queue(data, kind, offset, LIMIT, decided_too=all_of_them)
    if found.value and not found.value.rows and found.value.total:
        # What was decided left the last page empty.
        offset = (found.value.total - 1) // LIMIT * LIMIT
        found = data_backend.queue(data, kind, offset, LIMIT, decided_too=all_of_them)
    frame.notice(found)
    queue = found.value
    if queue is None:
        return
    if kind is not None and kind not in dict(queue.kinds):
        frame.not_found("kind of suspicion", kind)
        return
    _tables(data)
    _kinds(queue, kind)
    _reviewer(all_of_them)
    if said := st.session_state.pop(SAID, None):
        frame.notice(Known(None, None, said))
    if not queue.rows:
        st.html('<span class="quiet">Nothing waits here.</span>')
        return
    data_rows.pager(offset, len(queue.rows), queue.total, offset + len(queue.rows) < queue.total, size=LIMIT)
    for row in queue.rows:
        _suspect(data, row, queue.decided.get(row.id))


def _tables(data: Opened) -> None:
    for table in tables_of(data.audit.figures):
        with st.expander(table.title):
            st.html(
                html(
                    '<div class="quiet">{note}</div><div class="scroll">{drawn}</div>',
                    note=table.note,
                    drawn=draw_table(table),
                )
            )


def _kinds(queue: Reviewed, chosen: str | None) -> None:
    frame.heading("Review queue", f"{number(len(queue.decided))} examples decided so far")
    with st.container(horizontal=True, key="kinds"):
        for kind, count in [(None, 0), *queue.kinds]:
            label = f"{visible(kind)} {number(count)}" if kind else "all kinds"
            shown = f"**{label}**" if kind == chosen else label
            data_rows.go_here(shown, f"to-kind-{kind or 'all'}", suspect=kind, offset=None)


def _reviewer(all_of_them: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Your name", key="reviewer", max_chars=100, width=260)
        label = "Hide what is decided" if all_of_them else "Show what is decided too"
        data_rows.go_here(label, "to-decided", decided=None if all_of_them else "too", offset=None)
    st.html(
        '<span class="quiet">What you keep or drop is no suspect in the next <span class="mono">sluice audit</span>; '
        'what you drop counts for nothing there, and <span class="mono">sluice split</span> leaves it out.</span>'
    )


def _suspect(data: Opened, row: Row, review: Decision | None) -> None:
    with st.container(border=True, gap="small", key=f"suspect-{row.number}"):
        head = html(
            '<div class="line"><b>Row {n}</b><span class="quiet">{p}</span></div>',
            n=number(row.number + 1),
            p=data_rows.place(row),
        )
        st.html(html("{head}{why}", head=head, why=data_rows.suspicions(row)))
        st.html(data_rows.conversation(row))
        if review:
            _decided(review)
        with (
            st.form(f"review-{row.number}", border=False),
            st.container(horizontal=True, vertical_alignment="bottom"),
        ):
            st.text_input("Because", key=f"because-{row.number}", max_chars=1000)
            for decision, icon in (("keep", "check"), ("drop", "delete")):
                st.form_submit_button(
                    decision.capitalize(),
                    icon=f":material/{icon}:",
                    key=f"{decision}-{row.number}",
                    on_click=_decide,
                    args=(data.recipe_name, row, decision),
                )


def _decided(review: Decision) -> None:
    looks = "open" if review.decision == "keep" else "closed"
    st.html(
        html(
            '<div class="line"><span class="verdict {looks}">{decision}</span><span>{by}: {because}</span></div>',
            looks=looks,
            decision=review.decision,
            by=review.by,
            because=review.because,
        )
    )


def _decide(recipe_name: str, row: Row, decision: Choice) -> None:
    by = str(st.session_state.get("reviewer") or "").strip()
    because = str(st.session_state.get(f"because-{row.number}") or "").strip()
    if not by or not because:
        st.session_state[SAID] = Problem(
            "Nothing was recorded: a decision needs a name and a reason.", "Fill in both, and click again."
        )
        return
    try:
        data_backend.decide(recipe_name, row, decision, by, because)
    except UserError as error:
        st.session_state[SAID] = Problem(error.message, error.remedy)
