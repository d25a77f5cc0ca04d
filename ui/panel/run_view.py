"""One run: its state and its job, its figures, its live curves, its examples and settings."""

import time
from datetime import UTC, datetime

import streamlit as st
from markupsafe import Markup

from pipelines.fingerprint import short
from pipelines.tracking.runs import RunSummary
from ui.panel import example_losses, frame, job_view, jobs_backend, report_view, run_curves, sweeps_backend
from ui.panel.backend import RunView
from ui.panel.markup import age, duration, html, number, visible
from ui.panel.run_marks import marks_of

SILENT_S = 120
"""A running run without a new point for this long may have lost its process."""
STATES = {"RUNNING": "running", "FINISHED": "open", "FAILED": "closed", "KILLED": "waived"}
WORDS = {"RUNNING": "running", "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


def word(run: RunSummary) -> str:
    """The state as people say it."""
    return WORDS.get(run.status, run.status.lower())


def state(run: RunSummary) -> Markup:
    """The state as a shape and a word."""
    return html('<span class="verdict {kind}">{word}</span>', kind=STATES.get(run.status, "none"), word=word(run))


def seconds(run: RunSummary) -> float:
    """How long it took, or has taken so far."""
    ended: datetime = run.ended_at or datetime.now(UTC)
    return (ended - run.started_at).total_seconds()


def moves(view: RunView) -> bool:
    """Whether more is to come: the run goes on, or its job has not ended yet."""
    if view.run.status == "RUNNING":
        return True
    submission_id = view.run.tags.get("sluice.submission")
    found = jobs_backend.job(submission_id) if submission_id else None
    return bool(found and found.value and not found.problem and not found.value.state.ended)


def show(view: RunView) -> None:
    """The whole run."""
    figures = view.report.figures if view.report else {}
    _head(view)
    _sweep(view)
    _job(view)
    _figures(view)
    run_curves.of_one(view.run.run_id, view.curves, marks_of(view.curves, figures))
    example_losses.show(figures)
    example = figures.get("example")
    left, right = st.columns(2, gap="large")
    if isinstance(example, dict) and example:
        with left:
            report_view.example(example)
        left = right
    with left:
        _parameters(view)


def _head(view: RunView) -> None:
    run = view.run
    st.html(
        html(
            '<div class="line"><b class="clip" style="max-width:38rem" title="{name}">{name}</b>{state}'
            '<span class="quiet">{stage} of {recipe}</span><span class="quiet">started {started}, {took}</span>'
            '<span class="mono quiet clip">{id}</span></div>',
            name=run.name,
            state=state(run),
            stage=run.stage,
            recipe=run.recipe_name,
            started=age(run.started_at),
            took=duration(seconds(run)),
            id=run.run_id,
        )
    )
    reason = str((view.report.figures if view.report else {}).get("stopped_because") or "")
    reason = reason or run.tags.get("sluice.stopped_because", "")
    if reason:
        st.html(html('<div><span class="quiet">Why it stopped:</span> {reason}</div>', reason=reason))


def _sweep(view: RunView) -> None:
    """The way to the sweep that the run is part of."""
    name = sweep_of(view.run)
    if name and any(line.sweep == name for line in sweeps_backend.sweeps(view.run.recipe_name).value or ()):
        trial = view.run.tags.get("sluice.trial")
        parameters = frame.address(recipe=view.run.recipe_name, sweep=name, trial=trial)
        st.page_link(frame.PAGES["Sweeps"], label="Its sweep", query_params=parameters)


def sweep_of(run: RunSummary) -> str:
    """Name of the sweep that it is, or is a trial of; empty for other runs."""
    key = run.tags.get("sluice.key")
    return f"{run.recipe_name}-sweep-{key}" if key and run.stage in ("sweep", "trial") else ""


def _job(view: RunView) -> None:
    """Its job with stop and resume; without one, what to do in the terminal that it was started from."""
    run = view.run
    submission_id = run.tags.get("sluice.submission")
    if submission_id:
        found = jobs_backend.job(submission_id)
        frame.notice(found)
        if found.value:
            with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="run-job"):
                st.page_link(
                    frame.PAGES["Jobs"],
                    label="Job and log",
                    query_params=frame.address(recipe=run.recipe_name, job=submission_id),
                )
                st.html(job_view.state(found.value), width="content")
                job_view.controls(found.value)
        return
    stage = "sweep" if run.stage == "trial" else run.stage
    command = f"sluice {stage} RECIPE"
    silent = _silence(view)
    if run.status == "RUNNING" and silent and silent > SILENT_S:
        text = html(
            "No new point for {time}. When its process has ended, <code>{command}</code> {told}.",
            time=duration(silent),
            command=command,
            told=job_view.ON_RESUME.get(stage, "starts it again"),
        )
        frame.say(text, "warning")
    elif run.status in ("FAILED", "KILLED") and run.stage == "train":
        st.html(
            html(
                '<span class="quiet">It was no job: the same command, <code>{command}</code>, goes on from its last '
                "checkpoint.</span>",
                command=command,
            )
        )


def _silence(view: RunView) -> float | None:
    """Seconds since the last point of any curve."""
    last = [points[-1][2] for points in view.curves.values() if points]
    return time.time() - max(last) if last else None


def _figures(view: RunView) -> None:
    metrics = view.run.metrics
    steps = max((points[-1][0] for points in view.curves.values() if points), default=0)
    values = {"step": number(steps)}
    shown = {
        "train loss": "train/loss",
        "validation loss": "validation/loss",
        "validation perplexity": "validation/perplexity",
        "tokens per second": "train/tokens_per_second",
        "learning rate": "train/learning_rate",
        "gradient norm": "train/grad_norm",
        "utilisation": "train/utilisation",
    }
    values |= {label: number(metrics[name]) for label, name in shown.items() if name in metrics}
    if "train/memory_bytes" in metrics:
        values["peak memory, GiB"] = number(metrics["train/memory_bytes"] / run_curves.GIB)
    st.html(report_view.facts(values, large=True))


def _parameters(view: RunView) -> None:
    frame.heading("Parameters")
    if view.report:
        st.page_link(
            frame.PAGES["Overview"],
            label=f"Report `{short(view.report.key)}`",
            query_params=frame.address(recipe=view.run.recipe_name, report=view.report.key),
        )
    rows = [{"parameter": name, "value": visible(value)} for name, value in sorted(view.run.params.items())]
    if rows:
        st.dataframe(rows, hide_index=True, height=min(38 + 30 * len(rows), 330), row_height=30)
