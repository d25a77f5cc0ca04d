"""The charts of an audit, from its report's figures. Pure."""

from collections.abc import Iterator
from typing import Any

from pipelines.data.display.plots import Bar, Plot, histogram, lengths, most_common
from pipelines.markup import number


def plots_of(figures: dict[str, Any]) -> tuple[Plot, ...]:
    """Every chart that the figures hold something for, in the order in which people ask."""
    return (*_lengths(figures), *_what(figures), *_trust(figures))


def _lengths(figures: dict[str, Any]) -> Iterator[Plot]:
    yield from lengths("Length of the prompts", "words", figures.get("prompt_words"))
    yield from lengths("Length of the answers", "words", figures.get("answer_words"))
    yield from lengths("Length of the conversations", "tokens", figures.get("tokens"))
    if over := _pairs(figures.get("over_length")):
        bars = tuple(Bar(f"{size} tokens", part) for size, part in over.items())
        yield Plot("Longer than the context", "share of examples that a context of this size would cut", bars, of=1)


def _what(figures: dict[str, Any]) -> Iterator[Plot]:
    rows = figures.get("readable_rows") or None
    for name, title, note in (
        ("languages", "Languages", "of the answers"),
        ("labels", "Labels", "rows of each category"),
        ("roles", "Roles", "who speaks, in which order"),
        ("turns", "Turns", "of a conversation"),
    ):
        if counts := _pairs(figures.get(name)):
            if name == "roles":
                # A line may break between two turns.
                counts = {roles.replace(",", ", "): value for roles, value in counts.items()}
            yield Plot(title, note, most_common(counts), of=rows)
    time = figures.get("time_range") or {}
    if periods := time.get("rows_by_period"):
        bars = tuple(Bar(one["period"], one["rows"]) for one in periods)
        yield Plot("Time", f"rows by when they were made, {time['first']} to {time['last']}", bars, ordered=True)


def _trust(figures: dict[str, Any]) -> Iterator[Plot]:
    if sizes := histogram(figures.get("cluster_sizes") or []):
        note = "clusters by their rows; those of more than one row repeat one another"
        yield Plot("Sizes of the clusters", note, sizes, ordered=True)
    for name, title, note in (
        ("suspects", "Suspects", "rows by what they are suspected of"),
        ("private", "Personal data and secrets", "rows by kind"),
        ("quarantined", "Kept aside", "rows that could not be read, by reason"),
    ):
        if counts := _pairs(figures.get(name)):
            yield Plot(title, note, most_common(counts), of=figures.get("rows") or None)


def _pairs(figure: Any) -> dict[str, float]:
    """Name -> rows, of a figure that is a mapping or a list of names with their rows."""
    if isinstance(figure, list):
        return {str(item["name"]): item["rows"] for item in figure}
    return {str(name): value for name, value in (figure or {}).items()}


def headline(figures: dict[str, Any]) -> dict[str, str]:
    """The figures that a reader asks for first, by name."""
    shares = {"duplicate_share": "repeat another", "random_split_leak_share": "leaked by a random split"}
    names = {
        "rows": "rows",
        "unique_examples": "different examples",
        "human_annotated": "by named people",
        "suspect_rows": "suspect rows",
        "private_rows": "with personal data",
    }
    told = {label: number(figures[name]) for name, label in names.items() if name in figures}
    return told | {label: f"{100 * figures[name]:.1f} %" for name, label in shares.items() if name in figures}
