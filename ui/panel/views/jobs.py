"""Jobs: what was submitted; the one in the address with its log, stop and resume."""

import streamlit as st

from pipelines.tracking.submission_log import Submission
from ui.panel import backend, frame, job_view, jobs_backend, log_view
from ui.panel.markup import age, html, number

LIVE_S, LIST_S = 2, 5
SHOWN = 20


def jobs() -> None:
    """The page."""
    recipe_name, submission_id = frame.in_address("recipe"), frame.in_address("job")
    if submission_id:
        frame.go("All jobs", "to-jobs", recipe=recipe_name)
        found = jobs_backend.job(submission_id)
        live = bool(found.problem) or (found.value is not None and not found.value.state.ended)
        st.fragment(_job, run_every=LIVE_S if live else None)(submission_id, live)
        if found.value is not None:
            log_view.download(found.value)
    else:
        _list(recipe_name)


@st.fragment(run_every=LIST_S)
def _list(recipe_name: str | None) -> None:
    found = backend.submissions(recipe_name)
    frame.heading("Jobs", f"submitted stages of {recipe_name}" if recipe_name else "submitted stages")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            _nothing_yet(recipe_name)
        return
    with st.container(key="jobs", gap="xsmall"):
        for job in found.value[:SHOWN]:
            _row(job)
    if len(found.value) > SHOWN:
        more = number(len(found.value) - SHOWN)
        st.html(html('<span class="quiet">{n} more: <span class="mono">sluice jobs</span></span>', n=more))


def _row(job: Submission) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        frame.go(job.submission_id, f"to-job-{job.submission_id}", recipe=job.recipe_name, job=job.submission_id)
        st.html(
            html(
                '<div class="line">{state}{seen}<span class="quiet">{stage} of {recipe}</span>'
                '<span class="quiet">{age}</span></div>',
                state=job_view.state(job),
                seen=job_view.seen(job),
                stage=job.stage,
                recipe=job.recipe_name,
                age=age(job.created_at),
            )
        )


def _nothing_yet(recipe_name: str | None) -> None:
    st.html(
        '<div class="empty"><h1>Nothing was submitted yet</h1><p>A job is a stage of the pipeline at work on a Ray '
        "cluster: it goes on when this page is closed, and can be stopped and resumed. Fill in the form, or use the "
        "command line:</p><pre>sluice submit run RECIPE</pre></div>"
    )
    with st.container(horizontal_alignment="center"):
        st.page_link(
            frame.PAGES["Launch"],
            label="**Launch a stage**",
            icon=":material/play_arrow:",
            query_params=frame.address(recipe=recipe_name),
        )


def _job(submission_id: str, live: bool) -> None:
    found = jobs_backend.job(submission_id)
    frame.notice(found)
    job = found.value
    if job is None:
        if not found.problem:
            frame.not_found("job", submission_id)
        return
    if live and not found.problem and job.state.ended:
        # It has ended: nothing grows any more.
        st.rerun()
    job_view.show(job, away=found.problem is not None)


jobs()
