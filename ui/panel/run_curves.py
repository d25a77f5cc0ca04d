"""The curves of a run, live, or of several over each other."""

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from ui.panel import charts
from ui.panel.charts import LETTERS, Points, Series
from ui.panel.run_marks import Mark

GIB = 2**30


class Chart(NamedTuple):
    """A chart of metrics over the steps."""

    title: str
    unit: str
    metrics: dict[str, str]
    """Label -> metric."""
    size: float = 1
    """What one unit of the chart is in the metric's own."""


NATS, MARGIN, PEAK = "nats per token", "chosen less rejected", "GiB, the peak of a worker"
CHARTS = (
    Chart("Loss", NATS, {"train": "train/loss", "validation": "validation/loss"}),
    Chart("Perplexity", "of the validation side", {"validation": "validation/perplexity"}),
    Chart("Reward margin", MARGIN, {"train": "train/reward_margin", "validation": "validation/reward_margin"}),
    Chart("Preferred", "share", {"train": "train/reward_accuracy", "validation": "validation/reward_accuracy"}),
    Chart("Learning rate", "", {"train": "train/learning_rate"}),
    Chart("Gradient norm", "before clipping", {"train": "train/grad_norm"}),
    Chart("Throughput", "tokens/s", {"train": "train/tokens_per_second"}),
    Chart("Utilisation", "share of the device's arithmetic", {"train": "train/utilisation"}),
    Chart("Memory", PEAK, {"process": "train/memory_bytes", "device": "train/device_memory_bytes"}, GIB),
)
COMPARED = (
    Chart("Validation loss", NATS, {"": "validation/loss"}),
    Chart("Training loss", NATS, {"": "train/loss"}),
    Chart("Reward margin", MARGIN, {"": "validation/reward_margin"}),
    Chart("Learning rate", "", {"": "train/learning_rate"}),
    Chart("Gradient norm", "before clipping", {"": "train/grad_norm"}),
    Chart("Throughput", "tokens/s", {"": "train/tokens_per_second"}),
    Chart("Memory", PEAK, {"": "train/memory_bytes"}, GIB),
)
"""Of several runs: a metric each, and a curve for every run."""
RISE = "Change of validation loss"
MARKED = ("Loss", "Perplexity", RISE)


def of_one(key: str, curves: dict[str, Points], marks: Sequence[Mark]) -> None:
    """Every chart that a run has points for, two in a row."""
    drawn = []
    for chart in CHARTS:
        series = [
            Series(label, scaled(curves[metric], chart.size), label)
            for label, metric in chart.metrics.items()
            if curves.get(metric)
        ]
        drawn.append((chart.title, chart.unit, series))
    rise = change(curves)
    drawn.insert(1, (RISE, "from its lowest before, interval of 95 %", [rise] if rise else []))
    _grid(key, drawn, marks)


def of_several(key: str, runs: Sequence[dict[str, Points]]) -> None:
    """The runs over each other, by their letters; a run without points of a metric is missing from its chart."""
    drawn = []
    for chart in COMPARED:
        (metric,) = chart.metrics.values()
        series = [
            Series(letter, scaled(curves[metric], chart.size), letter)
            for letter, curves in zip(LETTERS, runs, strict=False)
            if curves.get(metric)
        ]
        drawn.append((chart.title, chart.unit, series))
    _grid(key, drawn)


def scaled(points: Points, size: float) -> Points:
    """Points in units of `size`."""
    return [(step, value / size, at) for step, value, at in points]


def change(curves: dict[str, Points]) -> Series | None:
    """How far each validation is from the lowest before it, of those whose interval is known."""
    ends = [{step: value for step, value, _ in curves.get(f"validation/{end}", ())} for end in ("low", "high")]
    low, high = ends
    points = [point for point in curves.get("validation/difference", ()) if point[0] in low and point[0] in high]
    if not points:
        return None
    return Series("validation", points, "validation", [(low[step], high[step]) for step, _, _ in points])


def _grid(key: str, charted: Sequence[tuple[str, str, Sequence[Series]]], marks: Sequence[Mark] = ()) -> None:
    """Draw (title, unit, series), two in a row; those without a series are left out."""
    drawn = [each for each in charted if each[2]]
    if not drawn:
        st.html('<span class="quiet">No point yet.</span>')
    for start in range(0, len(drawn), 2):
        pair = drawn[start : start + 2]
        for column, (title, unit, series) in zip(st.columns(2, gap="medium"), pair, strict=False):
            with column:
                st.plotly_chart(
                    charts.curve(title, series, unit, marks if title in MARKED else ()),
                    key=f"{key}-{title}",
                    config={"displayModeBar": False},
                    alt=f"{title} over the steps",
                )
