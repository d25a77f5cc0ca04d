"""The data's audit: verdict, gates, what is in the data as charts, findings, and the report as a file."""

from typing import Any

import streamlit as st
from markupsafe import Markup

from pipelines.data.display.audit_plots import headline, plots_of
from pipelines.data.display.audit_tables import draw_table, token_tables
from pipelines.data.display.plots import Plot
from ui.panel import charts, frame, report_view
from ui.panel.data_backend import Opened
from ui.panel.markup import html, joined, number


def audit(data: Opened) -> None:
    """The view."""
    report = data.audit
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html(
            html(
                '<div class="line">{verdict}<span class="quiet">{stamp}</span></div>',
                verdict=report_view.verdict(report.verdict),
                stamp=report_view.stamp(report),
            )
        )
        st.space("stretch")
        if data.page:
            st.download_button(
                "Report for others",
                data.page.read_bytes,
                file_name=f"audit-{report.key[:12]}.html",
                mime="text/html",
                icon=":material/download:",
                type="tertiary",
                key="download",
                help="One HTML file with everything that is shown here; it refers to nothing outside.",
            )
    st.html(report_view.facts(headline(report.figures), large=True))
    report_view.gates(report.gates)
    report_view.waivers(report.waivers)
    _charts(plots_of(report.figures))
    for table in token_tables(report.figures):
        frame.heading(table.title, table.note)
        st.html(html('<div class="scroll">{drawn}</div>', drawn=draw_table(table)))
    _origins(report.figures)
    report_view.findings(report.findings)


def _charts(plots: tuple[Plot, ...]) -> None:
    if not plots:
        return
    frame.heading("What is in it")
    for start in range(0, len(plots), 3):
        for column, plot in zip(st.columns(3, gap="medium"), plots[start : start + 3], strict=False):
            with column:
                _chart(plot)


def _chart(plot: Plot) -> None:
    if plot.ordered:
        st.plotly_chart(charts.bars(plot), key=f"plot-{plot.title}", config={"displayModeBar": False}, alt=plot.title)
        return
    # Names come from the data: they are text on the page, and nothing for plotly to read.
    st.html(
        html(
            '<div class="plot"><b>{title}</b> <span class="quiet">{note}</span>{drawn}</div>',
            title=plot.title,
            note=plot.note,
            drawn=_bars(plot),
        )
    )


def _bars(plot: Plot) -> Markup:
    most = 1.0 if plot.of == 1 else max((bar.value for bar in plot.bars), default=0) or 1
    rows = [
        html(
            '<tr><td class="label">{label}</td><td>{bar}</td>'
            '<td class="n">{value}</td><td class="n quiet">{part}</td></tr>',
            label=bar.label,
            bar=html('<div class="bar" style="width:{w:.2f}%"></div>', w=100 * min(bar.value / most, 1.0))
            if bar.value
            else "",
            value=plot.told(bar.value),
            part=plot.part(bar.value),
        )
        for bar in plot.bars
    ]
    return html('<table class="bars">{rows}</table>', rows=joined(rows))


def _origins(figures: dict[str, Any]) -> None:
    origins = figures.get("origins") or []
    if not origins:
        return
    total = figures.get("origin_combinations", len(origins))
    more = f"; the commonest {len(origins)} of {number(total)} combinations" if total > len(origins) else ""
    frame.heading("Where it comes from", f"rows by source, collector and annotator{more}")
    rows = [
        html(
            '<tr><td>{source}</td><td>{collector}</td><td>{annotator}</td><td class="n">{rows}</td></tr>',
            **{name: one.get(name) or "not named" for name in ("source", "collector", "annotator")},
            rows=number(one["rows"]),
        )
        for one in origins
    ]
    head = Markup('<tr><th>source</th><th>collector</th><th>annotator</th><th class="n">rows</th></tr>')
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(rows)))
