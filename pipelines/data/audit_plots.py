"""The charts of an audit, from its report's figures. Pure."""

from collections.abc import Iterator
from typing import Any

from pipelines.data.plots import Bar, Plot, histogram, lengths, most_common
from pipelines.markup import number


def plots_of(figures: dict[str, Any]) -> tuple[Plot, ...]:
    """Every chart that the figures hold something for, in the order in which people ask."""
    return (*_lengths(figures), *_what(figures), *_trust(figures))


def _lengths(figures: dict[str, Any]) -> Iterator[Plot]:
    yield from lengths("Length of the prompts", "words", figures.get("prompt_words"))
    yield from lengths("Length of the answers", "words", figures.get("answer_words"))
    yield from lengths("Length of the conversations", "tokens", figures.get("tokens"))
    over = _pairs(figures.get("over_length"))
    if over:
        bars = tuple(Bar(f"{size} tokens" if size.isdigit() else size, part) for size, part in over.items())
        yield Plot("Longer than the context", "share of examples that a context of this size would cut", bars, of=1)


def _what(figures: dict[str, Any]) -> Iterator[Plot]:
    rows = figures.get("readable_rows") or None
    for name, title, note in (
        ("languages", "Languages", "of the answers"),
        ("labels", "Labels", "rows of each category"),
        ("roles", "Roles", "who speaks, in which order"),
        ("turns", "Turns", "of a conversation"),
    ):
        counts = _pairs(figures.get(name))
        if counts:
            shares = max(counts.values()) <= 1
            yield Plot(title, note, most_common(counts), of=1 if shares else rows)


def _trust(figures: dict[str, Any]) -> Iterator[Plot]:
    sizes = figures.get("cluster_sizes")
    if isinstance(sizes, dict) and isinstance(sizes.get("histogram"), list):
        sizes = sizes["histogram"]
    if isinstance(sizes, list) and sizes and "from" in sizes[0]:
        yield Plot("Sizes of the clusters", "rows that repeat one another", histogram(sizes), ordered=True)
    elif pairs := _pairs(sizes):
        bars = tuple(Bar(size, count) for size, count in pairs.items())
        yield Plot("Sizes of the clusters", "rows that repeat one another", bars, ordered=True)
    for name, title, note in (
        ("suspects", "Suspects", "rows by what they are suspected of"),
        ("private", "Personal data and secrets", "rows by kind"),
        ("quarantined", "Kept aside", "rows that could not be read, by reason"),
    ):
        if counts := _pairs(figures.get(name)):
            yield Plot(title, note, most_common(counts), of=figures.get("rows") or None)


def _pairs(figure: Any) -> dict[str, float]:
    """Name -> number, of a figure that is a mapping or a list of names with their rows."""
    if isinstance(figure, list):
        rows = [item for item in figure if isinstance(item, dict)]
        figure = {str(item.get("name", item.get("value"))): item.get("rows", item.get("count")) for item in rows}
    if not isinstance(figure, dict):
        return {}
    return {
        str(name): value for name, value in figure.items() if isinstance(value, int | float) and not _is_flag(value)
    }


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def headline(figures: dict[str, Any]) -> dict[str, str]:
    """The figures that a reader asks for first, by name."""
    shares = {"duplicate_share": "repeat another", "random_split_leak_share": "leaked by a random split"}
    names = {"rows": "rows", "unique_examples": "different examples", "human_annotated": "by named people"}
    told = {label: number(figures[name]) for name, label in names.items() if name in figures}
    return told | {label: f"{100 * figures[name]:.1f} %" for name, label in shares.items() if name in figures}
