"""What came of it, beside the pipeline: base against tuned, what is in production, the jobs."""

import streamlit as st
from markupsafe import Markup

from pipelines.gates import Report
from pipelines.tracking.submission_log import Submission
from ui.panel import backend, frame, job_view
from ui.panel.backend import Comparison
from ui.panel.markup import age, html, joined, number

LOG_SHOWN, JOBS_SHOWN = 5, 8


def comparison(evaluation: Report | None) -> None:
    """Base against tuned, with the intervals of the paired differences."""
    frame.heading("Base against tuned", "95 % intervals of the paired difference" if evaluation else "")
    if evaluation is None:
        st.html('<span class="quiet">Not evaluated yet.</span>')
        return
    rows = backend.comparisons(evaluation)
    head = Markup(
        '<tr><th>metric</th><th class="n">base</th><th class="n">tuned</th><th class="n">difference</th>'
        "<th>interval</th><th></th></tr>"
    )
    body = joined([_comparison_row(row) for row in rows])
    st.html(html('<div class="scroll"><table class="grid">{head}{body}</table></div>', head=head, body=body))


def _comparison_row(row: Comparison) -> Markup:
    def figure(value: float | None) -> str:
        return "" if value is None else number(value)

    interval = Markup()
    if row.low is not None and row.high is not None and row.difference is not None:
        reach = max(abs(row.low), abs(row.high), 1e-12) * 1.15
        at = [50 + 50 * value / reach for value in (row.low, row.difference, row.high)]
        interval = html(
            '<div class="interval" title="{title}"><u></u><i style="left:{low:.1f}%;width:{width:.1f}%"></i>'
            '<b style="left:{middle:.1f}%"></b></div>',
            title=f"{number(row.low)} to {number(row.high)}, n = {row.n}",
            low=at[0],
            width=at[2] - at[0],
            middle=at[1],
        )
    kind = row.conclusion if row.conclusion in ("better", "worse") else "none"
    return html(
        '<tr><td>{metric}</td><td class="n">{base}</td><td class="n">{tuned}</td><td class="n">{difference}</td>'
        '<td class="tint {kind}">{interval}</td><td>{conclusion}</td></tr>',
        metric=row.metric,
        base=figure(row.base),
        tuned=figure(row.tuned),
        difference=figure(row.difference),
        interval=interval,
        kind=kind,
        conclusion=html('<span class="verdict {k}">{c}</span>', k=kind, c=row.conclusion) if row.conclusion else "",
    )


def production(recipe_name: str) -> None:
    """The deployment log: what is in production, and what was."""
    found = backend.deployments(recipe_name)
    frame.heading("In production")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            st.html('<span class="quiet">Nothing was promoted yet.</span>')
        return
    rows = [
        html(
            '<tr><td>{model}</td><td>{action}</td><td>{by}</td><td class="quiet">{age}</td></tr>',
            model=f"{row.model_name} version {row.model_version}",
            action=html('<span class="verdict open">now</span>') if number_of == 0 else row.action,
            by=row.by,
            age=age(row.created_at),
        )
        for number_of, row in enumerate(found.value[:LOG_SHOWN])
    ]
    head = Markup("<tr><th>model</th><th></th><th>by</th><th>since</th></tr>")
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(rows)))
    parameters = frame.address(recipe=recipe_name)
    st.page_link(frame.PAGES["Production"], label="Traffic, evidence and rollback", query_params=parameters)


def jobs(recipe_name: str) -> None:
    """Submitted stages with their states; while Ray is away, as it last told."""
    found = backend.submissions(recipe_name)
    frame.heading("Jobs", "submitted stages")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            st.html('<span class="quiet">None; <span class="mono">sluice submit STAGE RECIPE</span> adds one.</span>')
        return
    head = Markup("<tr><th>job</th><th>stage</th><th>state</th><th>exit</th><th>submitted</th></tr>")
    rows = joined([_job_row(job) for job in found.value[:JOBS_SHOWN]])
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=rows))
    if len(found.value) > JOBS_SHOWN:
        more = number(len(found.value) - JOBS_SHOWN)
        st.html(html('<span class="quiet">{n} more</span>', n=more))
    st.page_link(frame.PAGES["Jobs"], label="Logs, stop and resume", query_params=frame.address(recipe=recipe_name))


def _job_row(job: Submission) -> Markup:
    seen = job_view.seen(job)
    return html(
        '<tr><td class="mono break">{id}</td><td>{stage}</td><td>{state}{seen}</td><td>{exit}</td>'
        '<td class="quiet">{age}</td></tr>',
        id=job.submission_id,
        stage=job.stage,
        state=job_view.state(job),
        seen=html("<br>{seen}", seen=seen) if seen else seen,
        exit="" if job.exit_code is None else str(job.exit_code),
        age=age(job.created_at),
    )
