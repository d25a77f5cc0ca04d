"""Runs beside each other: only the settings that differ, how each came out, their curves over each other."""

from contextlib import suppress

import streamlit as st
from markupsafe import Markup

from ui.panel import frame, run_curves, run_view
from ui.panel.backend import RunView
from ui.panel.charts import COLOURS, LETTERS
from ui.panel.markup import duration, html, joined, number
from ui.panel.run_differences import differing, final, lowest, same_examples


def show(views: list[RunView]) -> None:
    """The whole comparison, the runs by letters in their order."""
    runs = [view.run for view in views]
    apart = differing(runs)
    frame.heading("Settings that differ", f"{len(apart)}" if apart else "")
    if apart:
        rows = [[_setting(value) for value in values] for values in apart.values()]
        names = [html('<span class="mono">{name}</span>', name=name) for name in apart]
        _table("setting", rows, names, views)
    else:
        st.html('<span class="quiet">None: the runs were asked for the same.</span>')
    _finals(views)
    run_curves.of_several("-".join(run.run_id for run in runs), [view.curves for view in views])


def _setting(value: str | None) -> Markup:
    """A setting to look at: of a number that was drawn, with its sixteen digits, the first; all of them on hovering."""
    shown = value or "not set"
    with suppress(ValueError):
        shown = number(float(shown)) if len(shown) > 10 else shown
    return html('<span class="mono break" title="{whole}">{shown}</span>', whole=value or "", shown=shown)


def _finals(views: list[RunView]) -> None:
    ends = [final(view.run, view.curves) for view in views]
    same = same_examples([view.run for view in views])
    best = lowest([end.best_validation_loss for end in ends]) if same else set()
    frame.heading(
        "How they came out",
        "nats per token; memory is the peak of a worker's process"
        if same
        else "nats per token, of other validation examples each: the losses are not comparable",
    )

    def figure(value: float | None) -> Markup:
        return html("{value}", value="" if value is None else number(value))

    def winner(place: int) -> Markup:
        end = ends[place]
        if end.best_validation_loss is None:
            return Markup()
        lead = html(' <span class="verdict better">lowest</span>') if place in best and len(best) < len(ends) else ""
        return html(
            "{value} at step {step}{lead}", value=number(end.best_validation_loss), step=end.best_step, lead=lead
        )

    rows = {
        "state": [run_view.state(view.run) for view in views],
        "best validation loss": [winner(place) for place in range(len(ends))],
        "last validation loss": [figure(end.validation_loss) for end in ends],
        "last training loss": [figure(end.train_loss) for end in ends],
        "steps": [figure(end.steps) for end in ends],
        "tokens per second": [figure(end.tokens_per_second) for end in ends],
        "memory, GiB": [figure(end.memory_bytes and end.memory_bytes / run_curves.GIB) for end in ends],
        "took": [html("{time}", time="" if end.seconds is None else duration(end.seconds)) for end in ends],
    }
    known = {name: cells for name, cells in rows.items() if any(cells)}
    _table("figure", list(known.values()), [html("{name}", name=name) for name in known], views)


def _table(corner: str, rows: list[list[Markup]], names: list[Markup], views: list[RunView]) -> None:
    heads = [
        html(
            '<th><span class="letter" style="color:{colour}">{letter}</span> <span class="clip" title="{name}">{name}'
            "</span></th>",
            colour=COLOURS[letter],
            letter=letter,
            name=view.run.name,
        )
        for letter, view in zip(LETTERS, views, strict=False)
    ]
    body = [
        html(
            "<tr><td>{name}</td>{cells}</tr>",
            name=name,
            cells=joined([html("<td>{cell}</td>", cell=cell) for cell in cells]),
        )
        for name, cells in zip(names, rows, strict=True)
    ]
    st.html(
        html(
            '<div class="scroll"><table class="grid compared"><tr><th>{corner}</th>{heads}</tr>{body}</table></div>',
            corner=corner,
            heads=joined(heads),
            body=joined(body),
        )
    )
