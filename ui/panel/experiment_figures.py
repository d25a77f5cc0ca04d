"""What an experiment shows: each metric with its interval, the primary one's as it narrows, the sample ratio."""

from typing import Any

import streamlit as st
from markupsafe import Markup

from serve.experimentation.evidence import how_counted
from ui.panel import experiment_charts, experiment_view, frame
from ui.panel.experiments_backend import ExperimentView
from ui.panel.markup import html, joined, number

GUARDS = {"harmed": ("closed", "harmed"), "safe": ("open", "within its margin"), "open": ("not_yet", "not shown yet")}


def metrics(view: ExperimentView) -> None:
    """Each metric's means, its interval as figures and on a line, and what follows of it."""
    about = view.about
    note = (
        f"{about['treated']} minus {about['control']}; the intervals hold at every look "
        f"(alpha {number(view.section.alpha)}); what is beyond the margin is shaded"
    )
    frame.heading("What it shows", note)
    head = html(
        '<tr><th>metric</th><th class="n">{control}</th><th class="n">{treated}</th><th class="n">difference</th>'
        '<th class="n">interval</th><th class="wide">on a line through zero</th><th class="n">p</th>'
        '<th class="n">margin</th><th>state</th></tr>',
        control=about["control"],
        treated=about["treated"],
    )
    rows = [_metric(view, metric) for metric in view.look["metrics"]]
    st.html(
        html('<div class="scroll"><table class="grid metrics">{head}{rows}</table></div>', head=head, rows=joined(rows))
    )
    if told := how_counted(about, view.look):
        st.html(html('<span class="quiet">{told}.</span>', told=told))


def _metric(view: ExperimentView, metric: dict[str, Any]) -> Markup:
    about, means, known = view.about, metric["means"], metric["enough"]
    if metric["primary"]:
        verdict = view.look["outcome"]
        looks, told = experiment_view.LOOKS.get(verdict, "none"), experiment_view.outcome(verdict)
    else:
        looks, word = GUARDS[metric["guard"]]
        told = experiment_view.mark(looks, word)
    return html(
        '<tr><td>{name}<br><span class="quiet">{role}, {good} is better</span></td><td class="n">{control}</td>'
        '<td class="n">{treated}</td><td class="n">{difference}</td><td class="n">{interval}</td>'
        '<td class="wide">{line}</td><td class="n">{p}</td><td class="n">{margin}</td><td>{told}</td></tr>',
        name=metric["metric"],
        role="primary" if metric["primary"] else "guardrail",
        good="higher" if metric["higher_is_better"] else "lower",
        control=_mean(means.get(about["control"])),
        treated=_mean(means.get(about["treated"])),
        difference=experiment_charts.signed(metric["difference"]) if means else "",
        interval=experiment_charts.interval(metric) if known else "",
        line=experiment_charts.forest(metric, looks),
        p=f"{metric['p']:.2g}" if known else "",
        margin=number(metric["margin"]),
        told=told,
    )


def _mean(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def narrowing(view: ExperimentView) -> None:
    """The primary metric's interval over the units."""
    frame.heading("How it narrows", "the primary metric at each look")
    figure = experiment_charts.narrowing(view)
    if figure is None:
        st.html('<span class="quiet">It is drawn from the first look at which enough is in for an interval.</span>')
        return
    st.plotly_chart(
        figure, key=f"narrowing-{view.number}", config={"displayModeBar": False}, alt="Interval over the units"
    )


def sample_ratio(view: ExperimentView) -> None:
    """Units by arm beside what the weights promise."""
    ratio, met = view.look["sample_ratio"], view.look["exposures"]
    frame.heading("Sample ratio", "units by arm; the mark is what the weights promise")
    expected = ratio["expected"]
    widest = max((*met.values(), *expected.values(), 1))
    rows = [
        html(
            '<tr><td class="label">{arm}</td><td><div class="share"><i style="width:{width:.1f}%"></i>'
            '<b style="left:{due:.1f}%"></b></div></td><td class="n">{units} of {promised}</td></tr>',
            arm=arm,
            width=100 * met.get(arm, 0) / widest,
            due=100 * due / widest,
            units=number(met.get(arm, 0)),
            promised=f"{due:,.0f}",
        )
        for arm, due in sorted(expected.items())
    ]
    verdict = experiment_view.mark("closed", "mismatch") if ratio["mismatch"] else Markup()
    text = '<table class="bars ratio">{rows}</table><div class="line">{verdict}<span>{sentence}.</span></div>'
    st.html(html(text, rows=joined(rows), verdict=verdict, sentence=ratio["sentence"]))
