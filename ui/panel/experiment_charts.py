"""The charts of an experiment: each metric's interval on a line through zero, and the primary one's as it narrows."""

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from serve.experimentation.evidence import counted
from ui.panel.charts import COLOURS, MARKED
from ui.panel.markup import html, number
from ui.panel.sweep_charts import plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ui.panel.experiments_backend import ExperimentView

BAND = "rgba(47, 143, 176, 0.22)"
TALLEST = 3.0
"""The chart is at most so many times as high as the last interval: the first ones are far wider than what decides."""


def signed(value: float) -> str:
    """A difference for people: `+0.0406`."""
    return f"{value:+.4g}"


def interval(metric: dict[str, Any]) -> str:
    """Both ends, or that too little is in for them."""
    if metric["low"] is None or metric["high"] is None:
        return "too little is in"
    return f"{signed(metric['low'])} to {signed(metric['high'])}"


def forest(metric: dict[str, Any], looks: str) -> Markup:
    """The interval on a line of its own scale: zero, the margin, and what lies beyond it in the bad direction."""
    low, high, margin, away = metric["low"], metric["high"], metric["margin"], metric["difference"]
    if low is None or high is None:
        return html('<span class="quiet">too little is in</span>')
    upwards = metric["higher_is_better"]
    reach = 1.12 * max(abs(low), abs(high), margin, 1e-12)
    at = {name: 50 + 50 * value / reach for name, value in {"low": low, "high": high, "point": away}.items()}
    edge = 50 + 50 * (-margin if upwards else margin) / reach
    return html(
        '<div class="forest {looks}" title="{title}"><s style="left:{bad:.1f}%;width:{wide:.1f}%"></s>'
        '<em style="left:{edge:.1f}%"></em><u></u><i style="left:{low:.1f}%;width:{width:.1f}%"></i>'
        '<b style="left:{point:.1f}%"></b></div><div class="ends"><span>{left}</span><span>{right}</span></div>',
        looks=looks,
        title=f"{signed(away)}, {interval(metric)}; margin {number(margin)}",
        bad=0 if upwards else edge,
        wide=edge if upwards else 100 - edge,
        edge=edge,
        low=at["low"],
        width=at["high"] - at["low"],
        point=at["point"],
        left="worse" if upwards else "← better",
        right="better →" if upwards else "worse",
    )


def narrowing(view: "ExperimentView") -> "Figure | None":
    """The primary metric's interval at each look over the units; None before the first that has one."""
    from plotly.graph_objects import Figure, Scatter

    points = intervals(view)
    if not points:
        return None
    units, lows, aways, highs = zip(*points, strict=True)
    edges = {"mode": "lines", "line": {"width": 1, "color": COLOURS["A"]}}
    figure = Figure(
        [
            Scatter(x=units, y=lows, hovertemplate="from %{y:+.4g}<extra></extra>", **edges),
            Scatter(
                x=units,
                y=highs,
                fill="tonexty",
                fillcolor=BAND,
                hovertemplate="to %{y:+.4g}<extra></extra>",
                **edges,
            ),
            Scatter(
                x=units,
                y=aways,
                mode="lines+markers" if len(points) <= 40 else "lines",
                marker={"size": 4},
                line={"width": 1.8, "color": COLOURS["A"]},
                hovertemplate="difference %{y:+.4g}<extra></extra>",
            ),
        ]
    )
    about, metric = view.about, _primary(view.look)
    if metric["margin"]:
        edge = -metric["margin"] if metric["higher_is_better"] else metric["margin"]
        _line(figure, "h", edge, "margin", COLOURS["B"])
    _line(figure, "h", 0, "", MARKED)
    _line(figure, "v", about["planned"], "planned", MARKED)
    tallest = TALLEST * max(abs(lows[-1]), abs(highs[-1]), metric["margin"])
    title = f"{plain(about['primary'], 60)}: {about['treated']} minus {about['control']}, over the units of both arms"
    figure.update_layout(
        title={"text": title, "font": {"size": 13}, "x": 0, "y": 0.98},
        height=300,
        margin={"l": 4, "r": 12, "t": 34, "b": 4},
        showlegend=False,
        hovermode="x unified",
        uirevision=view.number,
    )
    figure.update_xaxes(
        tickfont={"size": 11}, showgrid=False, automargin=True, range=[0, 1.04 * max(about["planned"], units[-1])]
    )
    shown = [max(min(lows), -tallest), min(max(highs), tallest)]
    pad = 0.06 * (max(*shown, 0) - min(*shown, 0))
    figure.update_yaxes(
        tickfont={"size": 11}, automargin=True, nticks=7, range=[min(*shown, 0) - pad, max(*shown, 0) + pad]
    )
    return figure


def intervals(view: "ExperimentView") -> list[tuple[int, float, float, float]]:
    """(units, low, difference, high) of the primary metric at each look that has one, the present state last."""
    now = {"units": sum(counted(view.look).values())} | view.look
    found = {}
    for look in (*view.looks, now):
        metric = _primary(look)
        if metric["low"] is not None and metric["high"] is not None:
            # Two looks at the same units: the later one counts.
            found[look["units"]] = (metric["low"], metric["difference"], metric["high"])
    return [(units, *ends) for units, ends in sorted(found.items())]


def _primary(look: dict[str, Any]) -> dict[str, Any]:
    return next(metric for metric in look["metrics"] if metric["primary"])


def _line(figure: "Figure", way: str, at: float, word: str, colour: str) -> None:
    note: dict[str, Any] = {"text": word, "font": {"size": 11, "color": colour}}
    line = {"width": 1, "dash": "dot", "color": colour}
    if way == "h":
        # Left of the line of the planned units, which stands near the right end.
        note |= {"x": 0.94, "xanchor": "right"}
        figure.add_hline(at, line=line, annotation=note, annotation_position="bottom right")
    else:
        figure.add_vline(at, line=line, annotation=note, annotation_position="top left")
