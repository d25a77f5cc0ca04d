"""The split: sizes and shares, what leaks as pairs side by side, what was held out, who was fitted to what."""

from typing import Any

import streamlit as st
from markupsafe import Markup

from pipelines.data.sides.split_findings import SHARED
from pipelines.fingerprint import short
from pipelines.gates import Report
from ui.panel import data_backend, data_rows, frame, report_view
from ui.panel.data_backend import PAIRS, LeakPair, Opened
from ui.panel.markup import age, html, joined, number, share

COMPARED = ("near", "containment", "semantic", "benchmark")
"""Kinds that have a degree."""


def leakage(data: Opened) -> None:
    """The view."""
    report = data.split
    if report is None:
        st.html('<span class="quiet">Not split yet: <span class="mono">sluice split RECIPE</span>.</span>')
        return
    if report.created_at < data.audit.created_at:
        frame.say(html("This split is older than the audit: it may be of other data."), "warning")
    st.html(
        html(
            '<div class="line">{verdict}<span class="quiet">{stamp}</span></div>',
            verdict=report_view.verdict(report.verdict),
            stamp=report_view.stamp(report),
        )
    )
    report_view.gates(report.gates)
    report_view.waivers(report.waivers)
    _sides(report.figures)
    _left_out(report.figures)
    if data.here:
        _leaks(data)
    report_view.findings(report.findings)
    _fits(report)


def _sides(figures: dict[str, Any]) -> None:
    rows, shares, wanted = (figures.get(name) or {} for name in ("rows", "shares", "wanted_shares"))
    if not rows:
        return
    frame.heading("Sides", "the mark is the share that the recipe asks for")
    columns = {"clusters": figures.get("clusters_by_side") or {}, "groups": figures.get("groups") or {}}
    lines = [
        html(
            '<tr><td class="key">{side}</td><td class="n">{rows}</td><td class="n">{share}</td><td class="n quiet">'
            '{wanted}</td><td>{bar}</td><td class="n">{clusters}</td><td class="n">{groups}</td></tr>',
            side=side.replace("_", " "),
            rows=number(count),
            share=share(shares[side]) if side in shares else "",
            wanted=share(wanted[side]) if side in wanted else "",
            bar=_bar(shares[side], wanted.get(side)) if side in shares else Markup(),
            **{name: number(values[side]) if side in values else "" for name, values in columns.items()},
        )
        for side, count in rows.items()
    ]
    head = Markup(
        '<tr><th>side</th><th class="n">examples</th><th class="n">share</th><th class="n">wanted</th><th></th>'
        '<th class="n">clusters</th><th class="n">groups</th></tr>'
    )
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(lines)))
    _labels(figures.get("labels") or {}, list(shares))


def _bar(part: float, wanted: float | None) -> Markup:
    mark = Markup() if wanted is None else html('<b style="left:{at:.1f}%"></b>', at=100 * wanted)
    return html('<div class="share"><i style="width:{w:.1f}%"></i>{mark}</div>', w=100 * part, mark=mark)


def _labels(labels: dict[str, dict[str, int]], sides: list[str]) -> None:
    if not labels:
        return
    frame.heading("Labels", "their share of each side")
    sizes = {side: sum(counts.get(side, 0) for counts in labels.values()) or 1 for side in sides}
    lines = [
        html(
            "<tr><td>{label}</td>{cells}</tr>",
            label=label,
            cells=joined(
                [
                    html(
                        '<td class="n">{n} <span class="quiet">{part}</span></td>',
                        n=number(counts.get(side, 0)),
                        part=share(counts.get(side, 0) / sizes[side]),
                    )
                    for side in sides
                ]
            ),
        )
        for label, counts in labels.items()
    ]
    head = joined([html('<th class="n">{side}</th>', side=side) for side in sides])
    st.html(
        html(
            '<div class="scroll"><table class="grid"><tr><th>label</th>{head}</tr>{rows}</table></div>',
            head=head,
            rows=joined(lines),
        )
    )


def _left_out(figures: dict[str, Any]) -> None:
    told = {"exact repeats": figures.get("repeats_left_out"), "held out": (figures.get("rows") or {}).get("held_out")}
    told |= {name.replace("_", " "): count for name, count in (figures.get("left_out") or {}).items()}
    told |= {"places kept": figures.get("kept_places"), "new places": figures.get("new_places")}
    shown = {name: number(count) for name, count in told.items() if count}
    if shown:
        frame.heading("Left out, held out, kept", "rows")
        st.html(report_view.facts(shown))


def _leaks(data: Opened) -> None:
    offset = max(frame.number_in_address("offset"), 0)
    found = data_backend.leaks(data, offset)
    frame.notice(found)
    if found.value is None:
        return
    pairs, total = found.value
    frame.heading("Leaks", f"{number(total)} pairs listed" if total else "none was found" if total == 0 else "")
    if total is None:
        frame.say(
            html('The pairs are no longer kept: run <span class="mono">sluice split RECIPE --fresh</span>.'), "warning"
        )
    if not total:
        return
    what = "pairs, by kind, the likest first"
    data_rows.pager(offset, len(pairs), total, offset + PAIRS < total, what, size=PAIRS)
    for place, pair in enumerate(pairs):
        with st.container(border=True, gap="xsmall", key=f"leak-{offset + place}"):
            _leak(pair)


def _leak(pair: LeakPair) -> None:
    st.html(
        html(
            '<div class="line"><span class="verdict error">{kind}</span><span>{shared}</span>'
            '<span class="quiet nums">{degree}</span></div>',
            kind=pair.kind,
            shared=SHARED.get(pair.kind, ""),
            degree=f"similarity {pair.similarity:.3f}" if pair.kind in COMPARED else "",
        )
    )
    if pair.left and pair.right:
        st.html(data_rows.side_by_side(pair.left, pair.right))
        return
    for row, id in zip((pair.left, pair.right), pair.ids, strict=True):
        if row:
            st.html(html('<span class="quiet">{place}</span>', place=data_rows.place(row)))
            st.html(data_rows.conversation(row))
        else:
            st.html(html('<span class="quiet">not of this data: <span class="mono break">{id}</span></span>', id=id))


def _fits(report: Report) -> None:
    found = data_backend.fits(report)
    frame.heading("Ledger", "what was fitted to rows of the split, and to which side")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            st.html('<span class="quiet">Nothing was fitted to it yet.</span>')
        return
    lines = [
        html(
            '<tr><td>{verdict}</td><td>{transform}</td><td>{side}</td><td class="n">{rows}</td><td class="n">{version}'
            '</td><td class="mono">{ids}</td><td class="wide">{recipe}</td><td class="quiet">{age}</td></tr>',
            verdict=html(
                '<span class="verdict {k}">{w}</span>',
                k="closed" if fit.problem else "open",
                w=fit.problem or "as it may",
            ),
            transform=fit.transform,
            side=fit.side,
            rows=number(fit.rows),
            version=fit.version,
            ids=short(fit.ids),
            recipe=fit.recipe_name,
            age=age(fit.created_at),
        )
        for fit in found.value
    ]
    head = Markup(
        '<tr><th></th><th>transform</th><th>side</th><th class="n">rows</th><th class="n">version</th><th>ids</th>'
        "<th>recipe</th><th></th></tr>"
    )
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(lines)))
