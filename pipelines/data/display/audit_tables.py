"""The tables of an audit: thresholds and scores of the suspects, labels in doubt; from its report's figures. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.markup import html, joined, number, share

QUANTILES = ("p50", "p90", "p99", "p99.9")
_UNITS = {
    "length": "robust z, at least",
    "repetition": "share of the answer, above",
    "gibberish": "robust z, at least",
    "language": "certainty, at least",
    "encoding": "signs in a hundred characters, above",
    "refusal": "",
    "boilerplate": "share of all answers, above",
    "mismatch": "share of rows that are shown",
    "loss": "robust z, at least",
}
"""What the threshold of a kind is measured in (see `recipe_data.Anomalies`)."""


@dataclass(frozen=True)
class Table:
    """Rows of text under their headings."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int]
    """Columns whose texts are figures."""


def tables_of(figures: dict[str, Any]) -> tuple[Table, ...]:
    """The tables that the figures hold something for."""
    return (*_thresholds(figures.get("anomalies") or {}), *_confusions(figures.get("label_noise") or {}))


def token_tables(figures: dict[str, Any]) -> tuple[Table, ...]:
    """Lengths by the base's tokenizer and by others, where there are others."""
    others = figures.get("tokenizers") or []
    if not others:
        return ()
    base = figures.get("tokens")
    lines = [*([base | {"over_length": figures["over_length"]}] if base else []), *others]
    sizes = sorted({int(size) for line in lines for size in line.get("over_length") or {}})
    rows = tuple(
        (
            str(line["tokenizer"]),
            "not on this machine" if line["total"] is None else number(line["total"]),
            *(number(line[name]) if name in line else "" for name in ("median", "p95", "max")),
            *(share(line["over_length"][str(size)]) if "over_length" in line else "" for size in sizes),
        )
        for line in lines
    )
    columns = ("tokenizer", "tokens", "median", "p95", "longest", *(f"over {number(size)}" for size in sizes))
    numbers = frozenset(range(1, len(columns)))
    note = "tokens of a conversation; share of rows that a context of this size would cut"
    return (Table("Lengths by tokenizer", note, columns, rows, numbers),)


def _thresholds(anomalies: dict[str, Any]) -> Iterator[Table]:
    kinds, not_run = anomalies.get("kinds") or {}, anomalies.get("not_run") or {}
    rows = [
        (
            kind,
            _threshold(found.get("threshold")),
            _UNITS.get(kind, ""),
            number(found.get("count", 0)),
            *(number(found[name], 3) if name in found else "" for name in QUANTILES),
        )
        for kind, found in kinds.items()
    ]
    rows += [(kind, "", reason, "", *("" for _ in QUANTILES)) for kind, reason in not_run.items() if kind not in kinds]
    if rows:
        yield Table(
            "Thresholds",
            "from which score a row is suspect (audit.anomalies), and the scores of all rows where they are distances",
            ("kind", "threshold", "measured in", "rows beyond", *QUANTILES),
            tuple(rows),
            frozenset({1, 3, 4, 5, 6, 7}),
        )


def _threshold(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)


def _confusions(label_noise: dict[str, Any]) -> Iterator[Table]:
    confusions = label_noise.get("confusions") or []
    if not confusions:
        return
    told = [f"estimated share of wrong labels {share(label_noise.get('estimated_share') or label_noise['share'])}"]
    if label_noise.get("decided_rows"):
        told.append(f"{share(label_noise['share'])} without what people decided")
    yield Table(
        "Labels in doubt",
        ", ".join((*told, "the pairs that most often seem to be confused")),
        ("label", "a model of the other folds says", "rows"),
        tuple((one["given"], one["proposed"], number(one["rows"])) for one in confusions),
        frozenset({2}),
    )


def draw_table(table: Table) -> Markup:
    """The table as HTML, for the report's page and for the panel."""
    rows = [_line(table, row, "td") for row in table.rows]
    head = _line(table, table.columns, "th")
    return html('<table class="grid">{head}{rows}</table>', head=head, rows=joined(rows))


def _line(table: Table, texts: Sequence[str], tag: str) -> Markup:
    cell = {
        "td": ("<td>{text}</td>", '<td class="n">{text}</td>'),
        "th": ("<th>{text}</th>", '<th class="n">{text}</th>'),
    }[tag]
    cells = [html(cell[place in table.numbers], text=text) for place, text in enumerate(texts)]
    return html("<tr>{cells}</tr>", cells=joined(cells))
