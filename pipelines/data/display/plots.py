"""What the audit's figures look like as charts: described once, drawn by the report's page and by the panel. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.markup import html, joined, number, share

WIDTH, HEIGHT = 520, 150
"""Of a histogram's drawing, in its own units."""
LABELS = 14
"""Labels below a histogram that do not touch; of more bars every so many has one."""
SHOWN = 12
"""Categories of a chart; what is rarer is added up."""


@dataclass(frozen=True)
class Bar:
    """A value with its name."""

    label: str
    value: float


@dataclass(frozen=True)
class Plot:
    """A chart of bars."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    ordered: bool = False
    """A histogram, whose labels are numbers: it stands upright. Names lie: they are long, and come from the data."""
    of: float | None = None
    """What a bar is a share of; 1: the values are shares themselves; None: counts alone."""

    def told(self, value: float) -> str:
        """A bar's value as people read it."""
        return share(value) if self.of == 1 else number(value)

    def part(self, value: float) -> str:
        """A bar's share of the whole, where counts have one."""
        return share(value / self.of) if self.of and self.of != 1 else ""


def draw(plot: Plot) -> Markup:
    """The chart as HTML with inline SVG: no style attribute, no script."""
    return _upright(plot) if plot.ordered else _lying(plot)


def _upright(plot: Plot) -> Markup:
    most = max((bar.value for bar in plot.bars), default=0) or 1
    step = WIDTH / max(1, len(plot.bars))
    room, floor = HEIGHT - 34, HEIGHT - 18
    every = -(-len(plot.bars) * max((len(bar.label) for bar in plot.bars), default=0) // (LABELS * 5))
    drawn = []
    for place, bar in enumerate(plot.bars):
        height = max(room * bar.value / most, 1.0 if bar.value else 0.0)
        values = {
            "x": f"{place * step + 1:.1f}",
            "y": f"{floor - height:.1f}",
            "width": f"{max(step - 2, 0.8 * step):.1f}",
            "height": f"{height:.1f}",
            "middle": f"{(place + 0.5) * step:.1f}",
            "above": f"{floor - height - 4:.1f}",
            "below": HEIGHT - 4,
        }
        drawn.append(
            html(
                '<g><title>{label}: {value}</title><rect class="bar" x="{x}" y="{y}" width="{width}" '
                'height="{height}" rx="1.5"/><text class="value" x="{middle}" y="{above}">{short}</text>'
                '<text class="tick" x="{middle}" y="{below}">{tick}</text></g>',
                label=bar.label,
                value=plot.told(bar.value),
                short=brief(bar.value) if bar.value and len(plot.bars) <= LABELS else "",
                tick=bar.label if place % every == 0 else "",
                **values,
            )
        )
    return html(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}"><line class="axis" x1="0" x2="{w}" '
        'y1="{floor}" y2="{floor}"/>{bars}</svg>',
        w=WIDTH,
        h=HEIGHT,
        title=plot.title,
        floor=floor,
        bars=joined(drawn),
    )


def _lying(plot: Plot) -> Markup:
    most = 1.0 if plot.of == 1 else max((bar.value for bar in plot.bars), default=0) or 1
    rows = [
        html(
            '<tr><td class="label">{label}</td><td class="track"><svg viewBox="0 0 100 8" preserveAspectRatio="none" '
            'aria-hidden="true"><rect class="bar" width="{width}" height="8"/></svg></td>'
            '<td class="n">{value}</td><td class="n quiet">{part}</td></tr>',
            label=bar.label,
            width=f"{max(100 * min(bar.value / most, 1.0), 0.5 if bar.value else 0):.2f}",
            value=plot.told(bar.value),
            part=plot.part(bar.value),
        )
        for bar in plot.bars
    ]
    return html('<table class="bars">{rows}</table>', rows=joined(rows))


def brief(value: float) -> str:
    """A count that fits above a bar: `950`, `12k`, `1.2M`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size * (1 if unit == "M" else 10):
            return f"{value / size:.3g}{unit}"
    return number(value)


def most_common(counts: dict[str, float]) -> tuple[Bar, ...]:
    """The SHOWN largest, the others added up."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    bars = [Bar(str(name), value) for name, value in ranked[:SHOWN]]
    if rest := ranked[SHOWN:]:
        bars.append(Bar(f"{len(rest):,} others", sum(value for _, value in rest)))
    return tuple(bars)


def histogram(bars: list[dict[str, Any]]) -> tuple[Bar, ...]:
    """The bars of a figure's histogram ({from, to, count}), without the empty ones at its ends."""
    counted = [index for index, bar in enumerate(bars) if bar["count"]]
    kept = bars[min(counted) : max(counted) + 1] if counted else []
    return tuple(Bar(_range(bar["from"], bar["to"]), bar["count"]) for bar in kept)


def _range(low: float, high: float | None) -> str:
    if high is None:
        return f"> {number(low - 1)}"
    return number(low) if low == high else f"≤ {number(high)}"


def lengths(title: str, unit: str, figure: Any) -> Iterator[Plot]:
    """The histogram of a figure of lengths (see `survey.lengths`), its median and ends in the note."""
    if isinstance(figure, dict) and figure.get("histogram"):
        told = ", ".join(f"{name} {number(figure[name])}" for name in ("median", "p95", "max") if name in figure)
        yield Plot(title, f"{unit}; {told}", histogram(figure["histogram"]), ordered=True)
