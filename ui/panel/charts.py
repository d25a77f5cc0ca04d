"""Curves of a run and histograms of data. Every label is ours, so that no data reaches plotly's own markup."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pipelines.data.display.plots import Plot

Points = list[tuple[int, float, float]]
"""(step, value, unix time)."""

COLOURS = {"train": "#2f8fb0", "validation": "#d97a32"}
"""Legible on paper and at night alike."""
POINTS_SHOWN = 2000
"""Points of a curve on the page; a longer one is thinned evenly, its last point kept."""


def curve(title: str, series: dict[str, Points], unit: str) -> "Figure":
    """A small chart of `series` over the steps."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for name, points in series.items():
        shown = thinned(points)
        figure.add_trace(
            Scatter(
                x=[step for step, _, _ in shown],
                y=[value for _, value, _ in shown],
                name=name,
                # Few points (validations) are worth a mark each; one point alone has no line.
                mode="lines+markers" if len(shown) <= 40 else "lines",
                marker={"size": 4},
                line={"width": 1.6, "color": COLOURS[name] if name in COLOURS else COLOURS["train"]},
                hovertemplate="%{y:.5g}",
            )
        )
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


def thinned(points: Points) -> Points:
    """At most POINTS_SHOWN of `points` (and the last one), evenly taken; never a changed value."""
    if len(points) <= POINTS_SHOWN:
        return points
    stride = -(-len(points) // POINTS_SHOWN)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


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
