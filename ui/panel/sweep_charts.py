"""The charts of a sweep: curves, best so far, parallel coordinates, slices, timeline.

Values come from recipes that people wrote: as text they are escaped, for plotly reads markup.
"""

import html
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.search.comparison import Axis
from pipelines.search.reading import word
from ui.panel.charts import COLOURS, MARKED
from ui.panel.markup import visible

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ui.panel.sweeps_backend import SweepView

LEADER, CHOSEN, ALIVE = COLOURS["B"], COLOURS["D"], COLOURS["A"]
SCALE = [[0, LEADER], [0.4, CHOSEN], [1, ALIVE]]
"""From the lowest loss to the highest; legible on paper and at night."""
LONGEST = 24
TALLEST = 600


def plain(text: object, longest: int = LONGEST) -> str:
    """Text that plotly shows as it is."""
    shown = visible(text)
    return html.escape(shown if len(shown) <= longest else f"{shown[: longest - 1]}…")


def curves(view: "SweepView", chosen: str) -> "Figure":
    """Validation loss of every trial over its steps; the leader and the chosen one stand out."""
    from plotly.graph_objects import Figure, Scatter

    leading = view.leader.trial if view.leader else ""
    alive = {row.trial for row in view.rows if row.state in ("running", "waiting", "paused")}
    groups = {
        "ended": ([t for t in view.curves if t not in alive | {leading, chosen}], MARKED, 1.0),
        "at work": ([t for t in view.curves if t in alive - {leading, chosen}], ALIVE, 1.4),
        "leader": ([leading] if leading and leading != chosen else [], LEADER, 2.4),
        "chosen": ([chosen] if chosen in view.curves else [], CHOSEN, 2.8),
    }
    figure = Figure()
    for label, (trials, colour, width) in groups.items():
        x: list[Any] = []
        y: list[Any] = []
        names: list[str] = []
        for trial in trials:
            for step, loss, _ in view.curves[trial]:
                x, y, names = [*x, step], [*y, loss], [*names, plain(trial)]
            # A gap between two trials.
            x, y, names = [*x, None], [*y, None], [*names, ""]
        if any(value is not None for value in x):
            figure.add_trace(
                Scatter(
                    x=x,
                    y=y,
                    text=names,
                    name=label,
                    mode="lines+markers",
                    opacity=0.6 if label == "ended" else 1,
                    marker={"size": 5},
                    line={"width": width, "color": colour},
                    hovertemplate="%{text}, step %{x}: %{y:.4f}<extra></extra>",
                )
            )
    return _laid_out(figure, "Validation loss over the steps, nats per token", legend=True)


def best(view: "SweepView") -> "Figure":
    """The leader's loss over the hours; each point a trial that took the lead."""
    from plotly.graph_objects import Figure, Scatter

    # By the workers' clocks, as the points are.
    start = min((span.began for span in view.spans), default=view.best[0].at)
    figure = Figure(
        Scatter(
            x=[(each.at - start) / 60 for each in view.best],
            y=[each.loss for each in view.best],
            text=[f"{plain(each.trial)} at step {each.step}" for each in view.best],
            mode="lines+markers",
            line={"shape": "hv", "width": 1.6, "color": LEADER},
            marker={"size": 6},
            hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        )
    )
    return _laid_out(figure, "Loss of the leader over the minutes since the start")


def parallel(view: "SweepView") -> "Figure":
    """A line for each trial through its values to its loss."""
    from plotly.graph_objects import Figure, Parcoords

    compared = view.compared
    dimensions = [_dimension(axis) for axis in compared.axes]
    dimensions.append({"label": f"loss, step {compared.step}", "values": list(compared.losses)})
    figure = Figure(
        Parcoords(
            dimensions=dimensions,
            line={"color": list(compared.losses), "colorscale": SCALE, "showscale": False},
            labelfont={"size": 12},
            tickfont={"size": 11},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            unselected={"line": {"opacity": 0.08}},
        )
    )
    figure.update_layout(height=300, margin={"l": 60, "r": 60, "t": 44, "b": 16}, uirevision=view.sweep)
    return figure


def _dimension(axis: Axis) -> dict[str, Any]:
    """An axis on which every value has a place, `none` below all others."""
    if axis.kind == "choice":
        texts = list(dict.fromkeys(word(value) for value in sorted(axis.values, key=_order) if value is not None))
        places: list[float | None] = [None if v is None else float(texts.index(word(v))) for v in axis.values]
        ticks = {float(place): text for place, text in enumerate(texts)}
    else:
        places = [_place(axis.kind, value) for value in axis.values]
        ticks = {at: text for at, text in _ticks(axis.kind, [place for place in places if place is not None])}
    low, high = min(ticks), max(ticks)
    none = low - max(0.15 * (high - low), 0.5 if high == low else 0)
    if any(place is None for place in places):
        ticks = {none: "none"} | ticks
        low = none
    pad = 0.04 * (high - low) or 0.5
    return {
        "label": plain(axis.key),
        "values": [none if place is None else place for place in places],
        "range": [low - pad, high + pad],
        "tickvals": list(ticks),
        "ticktext": [plain(text) for text in ticks.values()],
    }


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, word(value))


def _place(kind: str, value: Any) -> float | None:
    if not isinstance(value, int | float):
        return None
    return math.log10(value) if kind == "loguniform" else float(value)


def _ticks(kind: str, places: list[float]) -> list[tuple[float, str]]:
    low, high = min(places), max(places)
    spaced = [low + (high - low) * part / 4 for part in range(5)] if high > low else [low]
    return [(at, f"{10**at:.1e}" if kind == "loguniform" else f"{at:.3g}") for at in spaced]


def sliced(view: "SweepView", axis: Axis) -> "Figure":
    """Loss over the values of one key, a point for each trial."""
    from plotly.graph_objects import Figure, Scatter

    compared = view.compared
    leading = view.leader.trial if view.leader else ""
    points = [
        (value, loss, trial)
        for value, loss, trial in zip(axis.values, compared.losses, compared.trials, strict=True)
        if value is not None
    ]
    choice = axis.kind == "choice"
    figure = Figure(
        Scatter(
            x=[plain(word(value)) if choice else value for value, _, _ in points],
            y=[loss for _, loss, _ in points],
            text=[plain(trial) for _, _, trial in points],
            mode="markers",
            marker={"size": 8, "opacity": 0.85, "color": [LEADER if t == leading else ALIVE for *_, t in points]},
            hovertemplate="%{text}, %{x}: %{y:.4f}<extra></extra>",
        )
    )
    _laid_out(figure, plain(axis.key), height=210)
    if choice:
        texts = list(dict.fromkeys(plain(word(value)) for value, *_ in sorted(points, key=lambda p: _order(p[0]))))
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=texts)
    elif axis.kind == "loguniform":
        figure.update_xaxes(type="log", exponentformat="e", nticks=5, dtick=1)
    return figure


def timeline(view: "SweepView") -> "Figure":
    """Which trial had its turn where and when; one row a worker."""
    from plotly.graph_objects import Bar, Figure

    colours = ("A", "B", "C", "D", "E")
    order = {row.trial: number for number, row in enumerate(view.rows)}
    places = list(dict.fromkeys(span.place for span in view.spans))
    figure = Figure(
        Bar(
            orientation="h",
            base=[datetime.fromtimestamp(span.began, UTC) for span in view.spans],
            x=[span.seconds * 1000 for span in view.spans],
            y=[plain(span.place, 60) for span in view.spans],
            text=[plain(span.trial).removeprefix("trial-") for span in view.spans],
            customdata=[[plain(span.trial), span.seconds, _to(span.step)] for span in view.spans],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            insidetextfont={"color": "#ffffff"},
            marker={
                "color": [COLOURS[colours[order.get(span.trial, 0) % len(colours)]] for span in view.spans],
                "line": {"width": 0.5, "color": MARKED},
            },
            hovertemplate="%{customdata[0]}%{customdata[2]}: %{customdata[1]:.1f} s from %{base}<extra></extra>",
        )
    )
    height = min(TALLEST, 80 + 36 * max(2, len(places)))
    _laid_out(figure, "Who had a turn where; the numbers are trials (UTC)", height=height)
    figure.update_layout(bargap=0.25, hovermode="closest")
    figure.update_xaxes(type="date")
    figure.update_yaxes(autorange="reversed", nticks=None, showgrid=False)
    return figure


def _to(step: int | None) -> str:
    return f" to step {step}" if step else ""


def _laid_out(figure: "Figure", title: str, *, height: int = 300, legend: bool = False) -> "Figure":
    figure.update_layout(
        title={"text": title, "font": {"size": 13}, "x": 0, "y": 0.98 if height > 250 else 0.96},
        height=height,
        margin={"l": 4, "r": 8, "t": 34, "b": 4},
        showlegend=legend,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.12, "font": {"size": 12}},
        hovermode="closest",
        uirevision=title,
    )
    figure.update_xaxes(tickfont={"size": 11}, showgrid=False, automargin=True)
    figure.update_yaxes(tickfont={"size": 11}, automargin=True)
    return figure
