"""The rows that could not be read: where each stands, why it is none, and what is in it."""

import streamlit as st
from markupsafe import Markup

from pipelines.data.display.aside import Aside
from ui.panel import data_backend, data_rows, frame
from ui.panel.data_backend import Opened
from ui.panel.markup import html, joined

LIMIT = 25


def aside(data: Opened) -> None:
    """The view."""
    offset = max(frame.number_in_address("offset"), 0)
    found = data_backend.aside(data, offset, LIMIT)
    frame.notice(found)
    if found.value is None:
        return
    rows, total = found.value
    frame.heading("Kept aside", "rows that are no examples; personal data and secrets are masked")
    if not total:
        st.html('<span class="quiet">Every row could be read.</span>')
        return
    data_rows.pager(offset, len(rows), total, offset + len(rows) < total, size=LIMIT)
    st.html(joined([_row(row) for row in rows]))


def _row(row: Aside) -> Markup:
    return html(
        '<div class="finding"><div class="line"><b>{file}, row {row}</b><span>{reason}</span></div>'
        '<div class="sample">{content}</div></div>',
        file=row.file,
        row=row.row,
        reason=row.reason,
        content=row.content,
    )
