"""Overview: the pipeline as gates, the report behind each, production, base against tuned, jobs."""

from datetime import datetime

import streamlit as st
from markupsafe import Markup

from pipelines.fingerprint import short
from pipelines.gates import Report, Verdict
from ui.panel import backend, frame, outcome_view, report_view
from ui.panel.backend import Pipeline, StageView
from ui.panel.markup import age, html, joined
from ui.panel.report_view import verdict

REFRESH_S = 5


@st.fragment(run_every=REFRESH_S)
def overview() -> None:
    """The page; it follows what happens by itself."""
    recipe_name, key = frame.in_address("recipe"), frame.in_address("report")
    if key:
        _one_report(key)
    elif recipe_name:
        _pipeline(recipe_name)
    else:
        frame.wait_for_a_recipe()


def _pipeline(recipe_name: str) -> None:
    found = backend.pipeline(recipe_name)
    frame.notice(found)
    pipeline = found.value
    if pipeline is None:
        if not found.problem:
            frame.not_found("recipe", recipe_name)
        return
    running = backend.running_stages(recipe_name)
    selected = _selected(pipeline)
    _summary(pipeline, found.read_at)
    _cards(pipeline, selected, running)
    left, right = st.columns([1.65, 1], gap="large")
    with left, st.container(gap="xsmall"):
        _stage(selected, pipeline)
    with right, st.container(gap="xsmall"):
        outcome_view.comparison(pipeline.stage("evaluate").report)
        outcome_view.production(recipe_name)
        outcome_view.jobs(recipe_name)


def _selected(pipeline: Pipeline) -> StageView:
    """The stage in the address; else the first closed one, else the last with a report."""
    named = [stage for stage in pipeline.stages if stage.name == frame.in_address("stage")]
    closed = [stage for stage in pipeline.stages if stage.state == "closed"]
    done = [stage for stage in pipeline.stages if stage.report]
    return (named or closed or done[::-1])[0]


def _summary(pipeline: Pipeline, read_at: datetime | None) -> None:
    recipe = pipeline.recipe
    base = (recipe.get("models") or [{}])[0].get("base", "")
    newest = max(stage.report.created_at for stage in pipeline.stages if stage.report)
    parts = {
        "base": base,
        "method": (recipe.get("train") or {}).get("method", ""),
        "seed": str(recipe.get("seed", "")),
        "last report": age(newest),
    }
    told = joined(
        [
            html('<span><span class="quiet">{name}</span> <span class="clip">{value}</span></span>', name=n, value=v)
            for n, v in parts.items()
            if v
        ]
    )
    st.html(
        html(
            '<div class="line"><b class="break">{name}</b>{told}<span class="quiet nums">read {read}</span></div>',
            name=pipeline.recipe_name,
            told=told,
            read=f"{read_at:%H:%M:%S} UTC" if read_at else "never",
        )
    )


def _cards(pipeline: Pipeline, selected: StageView, running: set[str]) -> None:
    with st.container(horizontal=True, key="pipeline"):
        for stage in pipeline.stages:
            state = "running" if stage.name in running else stage.state
            here = "-here" if stage is selected else ""
            with st.container(key=f"stage-{stage.name}-{state}{here}"):
                title = stage.name.capitalize()
                frame.go(title, f"to-{stage.name}", recipe=pipeline.recipe_name, stage=stage.name)
                st.html(_card(stage, state))


def _card(stage: StageView, state: str) -> Markup:
    report = stage.report
    if report is None:
        note = {0: "no gate to pass", 1: "1 gate"}.get(len(stage.gates), f"{len(stage.gates)} gates")
        return html('<div class="card">{v}<br><span class="quiet">{n}</span></div>', v=verdict(state), n=note)
    note = _count(report)
    stale = Markup('<br><span class="verdict waived">on earlier inputs</span>') if stage.changed else Markup()
    return html(
        '<div class="card">{v}<br>{note}<br><span class="quiet">{age}</span>{stale}</div>',
        v=verdict(state),
        note=note,
        age=age(report.created_at),
        stale=stale,
    )


def _count(report: Report) -> str:
    """`3 of 4 open, 1 waived`."""
    counted = [gate.verdict for gate in report.gates if gate.verdict is not Verdict.NOT_APPLICABLE]
    if not counted:
        return "no gate to pass"
    told = [f"{counted.count(Verdict.OPEN)} of {len(counted)} open"]
    told += [f"{counted.count(v)} {v}" for v in (Verdict.CLOSED, Verdict.WAIVED) if v in counted]
    return ", ".join(told)


def _stage(stage: StageView, pipeline: Pipeline) -> None:
    report = stage.report
    frame.heading(stage.name.capitalize(), report_view.stamp(report) if report else "")
    if report is None:
        command = f"sluice {stage.name} RECIPE" if stage.state == "not_yet" else ""
        report_view.planned_gates(stage.gates, stage.state, command)
        return
    if stage.changed:
        frame.say(
            html(
                "This report is on other inputs than the stages before it have now ({names}): it opens nothing. "
                "Run <code>sluice {stage} RECIPE</code> again.",
                names=", ".join(stage.changed),
                stage=stage.name,
            ),
            "warning",
        )
    frame.go(f"Report `{short(report.key)}`", "to-report", recipe=pipeline.recipe_name, report=report.key)
    report_view.show_report(report)


def _one_report(key: str) -> None:
    found = backend.report(key)
    frame.notice(found)
    report = found.value
    if report is None:
        if not found.problem:
            frame.not_found("report", key)
        return
    frame.go("Back to the pipeline", "to-pipeline", recipe=report.recipe_name, stage=report.stage)
    st.html(
        html(
            '<div class="line"><b>{stage} of {recipe}</b>{verdict}<span class="quiet">{stamp}</span>'
            '<span class="mono quiet break">{key}</span></div>',
            stage=report.stage,
            recipe=report.recipe_name,
            verdict=verdict(report.verdict),
            stamp=report_view.stamp(report),
            key=report.key,
        )
    )
    report_view.show_report(report)


overview()
