"""Curves of runs and histograms of data. Every label is ours, so that no data reaches plotly's own markup."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pipelines.data.display.plots import Plot
    from ui.panel.run_marks import Mark

T = TypeVar("T")
Points = list[tuple[int, float, float]]
"""(step, value, unix time)."""

LETTERS = "ABCDE"
"""Names of the runs in a comparison, in their order."""
COLOURS = {
    "train": "#2f8fb0",
    "process": "#2f8fb0",
    "validation": "#d97a32",
    "device": "#d97a32",
    "A": "#2f8fb0",
    "B": "#d97a32",
    "C": "#7a9a3a",
    "D": "#b0609f",
    "E": "#9a7b5b",
}
"""Legible on paper and at night alike."""
MARKED = "#8a969d"
POINTS_SHOWN = 2000
"""Points of a curve on the page; a longer one is thinned evenly, its last point kept."""


class Series(NamedTuple):
    """A curve of a chart."""

    label: str
    points: Points
    colour: str
    """A key of COLOURS."""
    intervals: Sequence[tuple[float, float]] | None = None
    """(low, high) of each point."""


def curve(title: str, series: Sequence[Series], unit: str, marks: "Sequence[Mark]" = ()) -> "Figure":
    """A small chart of `series` over the steps, with a dotted line at each mark."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for label, points, colour, intervals in series:
        shown, bounds = thinned(points), None if intervals is None else thinned(intervals)
        figure.add_trace(
            Scatter(
                x=[step for step, _, _ in shown],
                y=[value for _, value, _ in shown],
                error_y=None
                if bounds is None
                else {
                    "array": [high - value for (_, value, _), (_, high) in zip(shown, bounds, strict=True)],
                    "arrayminus": [value - low for (_, value, _), (low, _) in zip(shown, bounds, strict=True)],
                    "thickness": 1.2,
                    "width": 3,
                },
                name=label,
                # Few points (validations) are worth a mark each; one point alone has no line.
                mode="lines+markers" if len(shown) <= 40 else "lines",
                marker={"size": 4},
                line={"width": 1.6, "color": COLOURS[colour]},
                hovertemplate="%{y:.5g}",
            )
        )
    for mark in marks:
        figure.add_vline(
            mark.step,
            line={"width": 1, "dash": "dot", "color": MARKED},
            annotation={"text": mark.word, "font": {"size": 11, "color": MARKED}, "yanchor": "top"},
        )
    if any(bounds is not None for *_, bounds in series):
        figure.add_hline(0, line={"width": 1, "dash": "dot", "color": MARKED})
    figure.update_layout(
        title={"text": f"{title}, {unit}" if unit else title, "font": {"size": 13}, "x": 0, "y": 0.97},
        height=230,
        margin={"l": 4, "r": 8, "t": 30, "b": 4},
        showlegend=len(series) > 1,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.16, "font": {"size": 12}},
        hovermode="x unified",
        # The same revision keeps a zoom while new points come in.
        uirevision=title,
    )
    figure.update_xaxes(tickfont={"size": 11}, showgrid=False, automargin=True)
    figure.update_yaxes(tickfont={"size": 11}, automargin=True, nticks=5, exponentformat="e", showexponent="all")
    return figure


def thinned(values: Sequence[T]) -> Sequence[T]:
    """At most POINTS_SHOWN of `values` (and the last one), evenly taken; never a changed value."""
    if len(values) <= POINTS_SHOWN:
        return values
    stride = -(-len(values) // POINTS_SHOWN)
    kept = values[::stride]
    return kept if (len(values) - 1) % stride == 0 else [*kept, values[-1]]


def bars(plot: "Plot") -> "Figure":
    """A histogram; its labels are numbers and dates, never names from the data."""
    from plotly.graph_objects import Bar, Figure

    figure = Figure(
        Bar(
            x=[bar.label for bar in plot.bars],
            y=[bar.value for bar in plot.bars],
            marker={"color": COLOURS["train"]},
            hovertemplate="%{x}: %{y:,}<extra></extra>",
        )
    )
    figure.update_layout(
        title={
            "text": plot.title,
            "subtitle": {"text": plot.note, "font": {"size": 11}},
            "font": {"size": 13},
            "x": 0,
            "y": 0.95,
        },
        height=230,
        margin={"l": 4, "r": 8, "t": 60, "b": 4},
        bargap=0.08,
    )
    figure.update_xaxes(tickfont={"size": 11}, showgrid=False, automargin=True, type="category", nticks=6, tickangle=0)
    figure.update_yaxes(tickfont={"size": 11}, automargin=True, nticks=4)
    return figure
