"""What was found about single rows, as the audit's page shows it: suspects, and clusters side by side."""

from typing import TYPE_CHECKING

from markupsafe import Markup

from pipelines.data.display.browse import Row
from pipelines.data.display.queues import Cluster, clusters_of, suspects_of
from pipelines.data.display.side_by_side import differences
from pipelines.data.display.view import View, kinds_of
from pipelines.markup import html, joined, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLUSTERS, SUSPECTS = 6, 3
"""Clusters that are shown, and suspects of each kind."""
TEXT = 1200
"""Characters of a text that are shown; the panel shows it whole."""


def suspects(view: View, decided: "NDArray[np.int64] | None" = None) -> Markup:
    """The worst rows of each kind of suspicion but for those that were `decided`, with reason and conversation."""
    parts = []
    for kind, _ in kinds_of(view, "suspects"):
        worst = suspects_of(view, kind, 0, SUSPECTS, without=decided)
        count = worst.total
        if not count:
            continue
        rows = joined([_suspect(row, kind) for row in worst.rows])
        parts.append(
            html(
                '<details class="panel"><summary>{kind}: {count}</summary>{rows}</details>',
                kind=kind,
                count="1 row" if count == 1 else f"{count:,} rows",
                rows=rows,
            )
        )
    return section("Suspects", joined(parts), f"the {SUSPECTS} worst of each kind") if parts else Markup()


def _suspect(row: Row, kind: str) -> Markup:
    why = [one for one in row.suspicions if one.kind == kind]
    return html(
        '<div class="finding"><div class="line"><span>{reason}</span><span class="quiet small">score {score}, {place}'
        "</span></div>{text}</div>",
        reason=why[0].reason if why else "",
        score=number(why[0].score) if why else "",
        place=_place(row),
        text=html('<div class="text">{turns}</div>', turns=_turns(row)),
    )


def _turns(row: Row) -> Markup:
    said = [
        html('<span class="who">{role}</span>{text}\n', role=turn["role"], text=cut(turn["content"], TEXT))
        for turn in row.turns
    ]
    return joined(said)


def clusters(view: View) -> Markup:
    """The largest clusters of near-duplicates, side by side with their differences."""
    found, total = clusters_of(view, "near", 0, CLUSTERS)
    if not found:
        return Markup()
    note = f"the {len(found)} largest of {total:,}, with their differences"
    return section("Near-duplicates", joined([_cluster(cluster) for cluster in found]), note)


def _cluster(cluster: Cluster) -> Markup:
    first, *others = cluster.members[:3]
    pairs = [_pair(first.row, other.row, other.similarity) for other in others]
    return html(
        '<div class="panel cluster"><h3>{rows} rows, {texts} different texts</h3>{pairs}</div>',
        rows=number(cluster.rows),
        texts=number(cluster.texts),
        pairs=joined(pairs),
    )


def _pair(left: Row, right: Row, similarity: float | None) -> Markup:
    texts = [cut("\n".join(turn["content"] for turn in row.turns), TEXT) for row in (left, right)]
    spans = differences(*texts)
    sides = [
        html(
            '<div><span class="quiet small">{place}{told}</span><div class="text">{text}</div></div>',
            place=_place(row),
            told=f", similarity {similarity:.2f}" if row is right and similarity is not None else "",
            text=joined([piece_markup(text, same, "less" if row is left else "more") for text, same in side]),
        )
        for row, side in zip((left, right), spans, strict=True)
    ]
    return html('<div class="pair">{sides}</div>', sides=joined(sides))


def piece_markup(text: str, same: bool, kind: str) -> Markup:
    """A piece of a compared text, marked where the other text lacks it."""
    return html("{text}", text=text) if same else html('<mark class="{kind}">{text}</mark>', kind=kind, text=text)


def _place(row: Row) -> str:
    return f"{row.facts.get('file', '')}, row {row.facts.get('position', row.number)}"


def section(title: str, body: Markup, note: str = "") -> Markup:
    """A part of the page under its heading."""
    return html("<section><h2>{title}<small>{note}</small></h2>{body}</section>", title=title, note=note, body=body)


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning with a sign that it goes on."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
