"""A job's log: its end as it grows, searched, downloaded; every line of it inert."""

import streamlit as st
from markupsafe import Markup

from pipelines.tracking.submission_log import Submission
from ui.panel import frame, jobs_backend
from ui.panel.markup import html, joined, number, visible

HEIGHT = 440
LINES = 2000
"""The newest, on the page; the download has all."""
LONGEST = 2000
"""Characters of a line on the page; the download has all."""


def show(job: Submission, *, away: bool) -> None:
    """The log with its search; `away`: the page says already that the cluster does not answer."""
    # One more than is shown: then it is known that there are more.
    found = jobs_backend.log(job, LINES + 1)
    lines = lines_of(found.value or "")
    cut = len(lines) > LINES
    lines = lines[-LINES:]
    frame.heading("Log", f"the last {number(LINES)} lines" if cut else "")
    with st.container(horizontal=True, vertical_alignment="bottom", key="log-search"):
        wanted = st.text_input(
            "Find in the log",
            key=f"log-find-{job.submission_id}",
            placeholder="Find in the log",
            label_visibility="collapsed",
            live=True,
            width=320,
        )
        shown = matching(lines, wanted or "")
        if wanted:
            st.html(html('<span class="quiet">{n} of {all} lines</span>', n=number(len(shown)), all=number(len(lines))))
    if not away:
        frame.notice(found)
    if not lines:
        if not found.problem:
            st.html('<span class="quiet">It has said nothing yet.</span>')
        return
    with st.container(height=HEIGHT, autoscroll=True, key="log"):
        st.html(html('<pre class="log">{lines}</pre>', lines=joined([marked(line, wanted or "") for line in shown])))


def download(job: Submission) -> None:
    """A button for all of the log.

    Not for what is drawn again and again: each time Streamlit forgets the button before, and a click on that one brings
    nothing.
    """
    st.download_button(
        "Download the whole log",
        data=lambda: jobs_backend.whole_log(job),
        file_name=f"{job.submission_id}.log",
        mime="text/plain",
        icon=":material/download:",
        on_click="ignore",
        key=f"log-download-{job.submission_id}",
    )


def lines_of(text: str) -> list[str]:
    """The lines of a log; of a line that was written over again and again (a progress bar) its last state."""
    ended = text.removesuffix("\n").split("\n") if text else []
    return [_shortened(visible(line.rstrip("\r").rpartition("\r")[2])) for line in ended]


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def matching(lines: list[str], wanted: str) -> list[str]:
    """The lines that hold `wanted`, whatever the case."""
    return [line for line in lines if wanted.lower() in line.lower()] if wanted else lines


def marked(line: str, wanted: str) -> Markup:
    """A line with each place of `wanted` marked; all of it inert."""
    folded, sought = line.lower(), wanted.lower()
    pieces, start = [], 0
    # Where lowering changes the length of a text, places do not hold: then nothing is marked.
    while sought and len(folded) == len(line) and (place := folded.find(sought, start)) >= 0:
        end = place + len(sought)
        pieces.append(html("{before}<mark>{found}</mark>", before=line[start:place], found=line[place:end]))
        start = end
    return html("{pieces}{rest}\n", pieces=joined(pieces), rest=line[start:])
