"""Clusters of repeats: near-duplicates side by side with their differences, exact repeats with their places."""

from typing import cast

import streamlit as st

from pipelines.data.display.queues import Cluster, Repeats
from ui.panel import data_backend, data_rows, frame
from ui.panel.data_backend import Opened
from ui.panel.markup import html, number

LIMIT = 10
REPEATS: dict[str, str] = {"near": "Near-duplicates", "exact": "Exact repeats"}


def clusters(data: Opened) -> None:
    """The view."""
    if frame.in_address("cluster"):
        _one(data)
        return
    repeats = frame.in_address("repeats") or "near"
    if repeats not in REPEATS:
        frame.not_found("kind of repeats", repeats)
        return
    with st.container(horizontal=True, key="repeats"):
        for kind, label in REPEATS.items():
            shown = f"**{label}**" if kind == repeats else label
            data_rows.go_here(shown, f"to-{kind}", repeats=kind if kind != "near" else None, offset=None)
    offset = max(frame.number_in_address("offset"), 0)
    found = data_backend.clusters(data, cast(Repeats, repeats), offset, LIMIT)
    frame.notice(found)
    if found.value is None:
        return
    listed, total = found.value
    if not listed:
        st.html('<span class="quiet">None here.</span>')
        return
    data_rows.pager(offset, len(listed), total, offset + len(listed) < total, "clusters, the largest first", size=LIMIT)
    for cluster in listed:
        _cluster(cluster, linked=True)


def _one(data: Opened) -> None:
    data_rows.go_here("All clusters", "to-clusters", cluster=None)
    found = data_backend.cluster(data, frame.number_in_address("cluster") - 1)
    frame.notice(found)
    if found.value is None:
        if not found.problem:
            frame.not_found("cluster", frame.in_address("cluster") or "")
        return
    _cluster(found.value, linked=False)


def _cluster(cluster: Cluster, *, linked: bool) -> None:
    first, *others = cluster.members
    title = f"{number(cluster.rows)} rows, " + ("one text" if cluster.texts == 1 else f"{number(cluster.texts)} texts")
    with st.container(border=True, gap="xsmall", key=f"cluster-{cluster.number}"):
        if linked:
            data_rows.go_here(
                title, f"to-cluster-{cluster.number}", cluster=data_rows.name(cluster.number), offset=None
            )
        else:
            st.html(html("<b>{title}</b>", title=title))
        if not others:
            places = ", ".join(f"row {copy + 1:,}" for copy in first.copies) + (" …" if first.count > 5 else "")
            st.html(html('<span class="quiet">{places}</span>', places=places))
            st.html(data_rows.conversation(first.row))
        for member in others:
            # Without an edge to the first text it belongs to the cluster through another one.
            told = "through others" if member.similarity is None else f"similarity {member.similarity:.3f}"
            copies = f"{told}, in {member.count:,} rows" if member.count > 1 else told
            means = f"{copies}, by meaning" if member.kind == "semantic" else copies
            st.html(data_rows.side_by_side(first.row, member.row, ("", means)))
        hidden = cluster.texts - len(cluster.members)
        if hidden > 0:
            st.html(html('<span class="quiet">{n} more texts</span>', n=number(hidden)))
