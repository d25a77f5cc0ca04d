"""Runs: trainings, sweeps and their trials; the one in the address with its live curves."""

import time
from datetime import UTC, datetime

import streamlit as st

from pipelines.fingerprint import fingerprint, short
from pipelines.tracking.runs import RunSummary
from ui.panel import backend, charts, example_losses, frame, report_view
from ui.panel.backend import RunView
from ui.panel.markup import age, duration, html, number, visible

LIVE_S, LIST_S = 2, 10
SILENT_S = 120
"""A running run without a new point for this long may have lost its process."""
CURVES = [
    ("Loss", {"train": "train/loss", "validation": "validation/loss"}, "nats per token"),
    ("Learning rate", {"learning rate": "train/learning_rate"}, ""),
    ("Throughput", {"tokens": "train/tokens_per_second"}, "tokens/s"),
    ("Gradient norm", {"norm": "train/grad_norm"}, "before clipping"),
]
STATES = {"RUNNING": "running", "FINISHED": "open", "FAILED": "closed", "KILLED": "waived"}
WORDS = {"RUNNING": "running", "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


def runs() -> None:
    """The page."""
    recipe_name = frame.in_address("recipe")
    _list(recipe_name)
    run_id = frame.in_address("run")
    if run_id:
        found = backend.run(run_id)
        live = found.value is not None and found.value.run.status == "RUNNING"
        st.fragment(_run, run_every=LIVE_S if live or found.problem else None)(run_id, live)


@st.fragment(run_every=LIST_S)
def _list(recipe_name: str | None) -> None:
    found = backend.runs(recipe_name)
    frame.notice(found)
    listed = found.value
    if listed is None:
        return
    if not listed:
        if recipe_name is None:
            frame.empty_workspace()
        else:
            st.html('<span class="quiet">No run yet: <span class="mono">sluice train RECIPE</span> starts one.</span>')
        return
    running = sum(run.status == "RUNNING" for run in listed)
    note = f"{number(len(listed))}, {running} running" if running else number(len(listed))
    frame.heading("Runs", f"{note}; read {found.read_at:%H:%M:%S} UTC" if found.read_at else note)
    _table(listed)


def _table(listed: list[RunSummary]) -> None:
    chosen = frame.in_address("run")
    ids = [run.run_id for run in listed]
    rows = [ids.index(chosen)] if chosen in ids else []
    event = st.dataframe(
        [_row(run) for run in listed],
        # Rows are chosen by position: when the list or the address changes, so does the widget.
        key=f"runs-{short(fingerprint(ids, chosen))}",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows}},
        height=35 + 32 * min(len(listed), 8),
        row_height=32,
        hide_index=True,
        placeholder="",
        column_config={
            "name": st.column_config.TextColumn("name", width="medium"),
            "started": st.column_config.DatetimeColumn("started", format="distance", width="small"),
            "took": st.column_config.TextColumn("took", width="small"),
            "validation loss": st.column_config.NumberColumn(format="%.4f"),
            "train loss": st.column_config.NumberColumn(format="%.4f"),
            "tokens/s": st.column_config.NumberColumn(format="%.0f"),
            "learning rate": st.column_config.NumberColumn(format="%.2e"),
        },
    )
    picked = [ids[row] for row in event["selection"]["rows"] if row < len(ids)]
    if picked != ([chosen] if rows else []):
        if picked:
            st.query_params["run"] = picked[0]
        else:
            st.query_params.pop("run", None)
        st.rerun()


def _row(run: RunSummary) -> dict[str, object]:
    return {
        "name": visible(run.name),
        "stage": run.stage,
        "state": WORDS.get(run.status, run.status.lower()),
        "started": run.started_at,
        "took": duration(_seconds(run)),
        "validation loss": run.metrics.get("validation/loss"),
        "train loss": run.metrics.get("train/loss"),
        "tokens/s": run.metrics.get("train/tokens_per_second"),
        "learning rate": _number(run.params.get("learning_rate")),
    }


def _number(text: str | None) -> float | None:
    """A tracked parameter as the number that it is; parameters are text, and `None` may be one."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _seconds(run: RunSummary) -> float:
    ended: datetime = run.ended_at or datetime.now(UTC)
    return (ended - run.started_at).total_seconds()


def _run(run_id: str, live: bool) -> None:
    found = backend.run(run_id)
    frame.notice(found)
    view = found.value
    if view is None:
        if not found.problem:
            frame.not_found("run", run_id)
        return
    if live != (view.run.status == "RUNNING"):
        # It ended (or was resumed): the page follows at the other pace.
        st.rerun()
    _head(view)
    _figures(view)
    _curves(view)
    if view.report:
        example_losses.show(view.report.figures)
    example = (view.report.figures if view.report else {}).get("example")
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
            state=html(
                '<span class="verdict {kind}">{word}</span>',
                kind=STATES.get(run.status, "none"),
                word=WORDS.get(run.status, run.status.lower()),
            ),
            stage=run.stage,
            recipe=run.recipe_name,
            started=age(run.started_at),
            took=duration(_seconds(run)),
            id=run.run_id,
        )
    )
    reason = str((view.report.figures if view.report else {}).get("stopped_because") or "")
    reason = reason or run.tags.get("sluice.stopped_because", "")
    if reason:
        st.html(html('<div><span class="quiet">Why it stopped:</span> {reason}</div>', reason=reason))
    silent = _silence(view)
    if run.status == "RUNNING" and silent and silent > SILENT_S:
        text = html(
            "No new point for {time}. When its process has ended, <code>sluice {stage} RECIPE</code> goes on "
            "from the last checkpoint.",
            time=duration(silent),
            stage="sweep" if run.stage == "trial" else run.stage,
        )
        frame.say(text, "warning")


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
        "peak memory, bytes": "train/memory_bytes",
    }
    values |= {label: number(metrics[name]) for label, name in shown.items() if name in metrics}
    st.html(report_view.facts(values, large=True))


def _curves(view: RunView) -> None:
    drawn = [
        (title, {label: view.curves[name] for label, name in series.items() if view.curves.get(name)}, unit)
        for title, series, unit in CURVES
    ]
    drawn = [(title, series, unit) for title, series, unit in drawn if series]
    if not drawn:
        st.html('<span class="quiet">No point yet.</span>')
        return
    for start in range(0, len(drawn), 2):
        for column, (title, series, unit) in zip(st.columns(2, gap="medium"), drawn[start : start + 2], strict=False):
            with column:
                st.plotly_chart(
                    charts.curve(title, series, unit),
                    key=f"{view.run.run_id}-{title}",
                    config={"displayModeBar": False},
                    alt=f"{title} over the steps",
                )


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


runs()
