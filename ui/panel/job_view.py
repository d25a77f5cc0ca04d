"""One job: its state, its command, stop and resume, and its log."""

import shlex
from datetime import UTC, datetime
from typing import Any

import streamlit as st
from markupsafe import Markup

from pipelines.submissions import STOPS_BY_ITSELF
from pipelines.tracking.submission_log import Submission
from ui.panel import frame, jobs_backend, log_view
from ui.panel.last_known import Known
from ui.panel.markup import age, duration, html, visible

LOOKS = {"succeeded": "open", "failed": "closed", "lost": "closed", "stopped": "waived", "running": "running"}
STALE_S = 60
"""A job that Ray told nothing of for this long is shown with the age of its state."""
PATIENCE_S = 60
"""After this long without an end, a stop that was asked for can be forced."""
ENDS = {"train": "after the checkpoint", "sweep": "after this step", "run": "after this stage, or a checkpoint"}
ON_STOP = {
    "train": "It ends at its next step, after a checkpoint that is complete. The same command goes on from there.",
    "sweep": "It ends at its next step. The same command goes on with its trials, each from its last validation.",
    "run": "It ends after the stage that it is at; a training ends at its next step, after a checkpoint. The same "
    "command does not do again what was done.",
}
ON_RESUME = {
    "train": "goes on from the last checkpoint",
    "sweep": "goes on with its trials, each from its last validation",
    "run": "goes on where it ended",
}
EXITS = {0: "done", 1: "failed", 2: "the request was wrong", 3: "a required gate is closed, or its evidence is missing"}


def state(job: Submission) -> Markup:
    """The state as a shape and a word."""
    if job.stop_requested_at and not job.state.ended:
        word = f"stopping: {ENDS[job.stage]}" if job.stage in ENDS else "stopping"
        return html('<span class="verdict running">{word}</span>', word=word)
    return html('<span class="verdict {kind}">{word}</span>', kind=LOOKS.get(job.state, "none"), word=job.state)


def seen(job: Submission) -> Markup:
    """How old the state is, where Ray was not asked just now: it is away, and this is what it last said."""
    told = job.seen_at
    if job.state.ended or (told and (datetime.now(UTC) - told).total_seconds() <= STALE_S):
        return Markup()
    return html('<span class="quiet">as of {age}</span>', age=age(told) if told else "its start")


def show(job: Submission, *, away: bool) -> None:
    """The whole job; `away`: its cluster does not answer, and the page has said so."""
    head(job)
    controls(job)
    if job.command:
        frame.heading("Command")
        st.code(visible(shlex.join(job.command)), language=None, wrap_lines=True)
    log_view.show(job, away=away)


def head(job: Submission) -> None:
    """What it is, how it stands, and where its curves are."""
    exit_code = "" if job.exit_code is None else f"exit {job.exit_code}: {EXITS.get(job.exit_code, 'ended')}"
    st.html(
        html(
            '<div class="line"><b>{stage} of {recipe}</b>{state}{seen}<span>{exit}</span>'
            '<span class="quiet">submitted {age}, attempt {attempt}</span><span class="mono quiet break">{id}</span>'
            "</div>",
            stage=job.stage,
            recipe=job.recipe_name,
            state=state(job),
            seen=seen(job),
            exit=exit_code,
            age=age(job.created_at),
            attempt=job.attempt,
            id=job.submission_id,
        )
    )
    run = jobs_backend.run_of(job)
    with st.container(horizontal=True, gap="medium"):
        if run:
            st.page_link(
                frame.PAGES["Runs"],
                label="Curves of its training",
                query_params=frame.address(recipe=job.recipe_name, run=run.run_id),
            )
        st.page_link(
            frame.PAGES["Overview"], label="Gates and reports", query_params=frame.address(recipe=job.recipe_name)
        )


def controls(job: Submission) -> None:
    """Stop while it is under way, resume once it was stopped."""
    if not job.state.ended:
        _stop(job)
    elif job.state in ("stopped", "failed", "lost"):
        _resume(job)


def _stop(job: Submission) -> None:
    if job.stop_requested_at is None:
        with st.popover("Stop", icon=":material/stop:", key=f"stop-{job.submission_id}"):
            st.html(ON_STOP.get(job.stage, "This stage has nothing to stop between: it is ended at once."))
            if st.button("Stop this job", type="primary", key=f"stop-now-{job.submission_id}"):
                act = jobs_backend.ask_to_stop if job.stage in STOPS_BY_ITSELF else jobs_backend.end_now
                _acted(act(job.submission_id))
        return
    waited = (datetime.now(UTC) - job.stop_requested_at).total_seconds()
    st.html(html('<span class="quiet">Stop asked for {time} ago.</span>', time=duration(waited)))
    if waited > PATIENCE_S:
        with st.popover("End it now", icon=":material/dangerous:", key=f"end-{job.submission_id}"):
            st.html("What it has not kept by now is lost, and done again on resume.")
            if st.button("End it at once", type="primary", key=f"end-now-{job.submission_id}"):
                _acted(jobs_backend.end_now(job.submission_id))


def _resume(job: Submission) -> None:
    told = ON_RESUME.get(job.stage, "starts this stage again")
    with st.container(horizontal=True, vertical_alignment="center"):
        asked = st.button("Resume", icon=":material/play_arrow:", type="primary", key=f"resume-{job.submission_id}")
        st.html(html('<span class="quiet">The same command again: it {told}.</span>', told=told))
    if not asked:
        return
    with st.spinner("Submitting the same command again ..."):
        made = jobs_backend.resume(job.submission_id)
    frame.notice(made)
    if made.value:
        st.switch_page(
            frame.PAGES["Jobs"],
            query_params=frame.address(recipe=made.value.recipe_name, job=made.value.submission_id),
        )


def _acted(done: Known[Any]) -> None:
    frame.notice(done)
    if not done.problem:
        st.rerun()
