"""The versions of the split: the log, and what happened to the rows from one version to another."""

from typing import TYPE_CHECKING, Any

import streamlit as st
from markupsafe import Markup

from pipelines.fingerprint import short
from pipelines.gates import Report
from ui.panel import data_backend, data_rows, frame, report_view
from ui.panel.data_backend import Opened
from ui.panel.markup import age, html, joined, number, visible

if TYPE_CHECKING:
    from pipelines.data.versioned.versions import Difference, Version

KINDS = {
    "added": "only in the later version",
    "removed": "only in the earlier version",
    "changed": "the same conversation and side, something else about it changed",
    "moved": "on another side than before",
}


def versions(data: Opened) -> None:
    """The view."""
    split = data.split
    if split is None:
        st.html('<span class="quiet">Not split yet: <span class="mono">sluice split RECIPE</span>.</span>')
        return
    found = data_backend.versions(split)
    frame.notice(found)
    if not found.value:
        return
    frame.heading("Versions", visible(split.produced.get("table", "")))
    _log(found.value, split.produced.get("version", ""))
    _compared(split, [version.version for version in found.value])


def _log(listed: "list[Version]", of_the_report: str) -> None:
    sides = [side for side in listed[0].rows if any(version.rows.get(side) for version in listed)]
    lines = [
        html(
            '<tr><td class="n">{version}</td><td class="quiet">{age}</td>{sizes}<td class="mono">{policy}</td>'
            '<td class="wide">{notes}</td></tr>',
            version=version.version,
            age=age(version.created_at),
            sizes=joined([html('<td class="n">{n}</td>', n=number(version.rows.get(side, 0))) for side in sides]),
            policy=short(version.policy),
            notes=_notes(version, of_the_report),
        )
        for version in listed
    ]
    head = html(
        '<tr><th class="n">version</th><th></th>{sides}<th>policy</th><th></th></tr>',
        sides=joined([html('<th class="n">{side}</th>', side=side.replace("_", " ")) for side in sides]),
    )
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(lines)))


def _notes(version: "Version", of_the_report: str) -> str:
    said = ["of the newest report"] if str(version.version) == of_the_report else []
    said += ["starts over"] if version.starts_over else []
    said += [f"restores version {version.restored}"] if version.restored is not None else []
    return ", ".join(said)


def _compared(split: Report, numbers: list[int]) -> None:
    after = frame.number_in_address("after", numbers[0])
    earlier = [one for one in numbers if one < after]
    before = frame.number_in_address("before", earlier[0] if earlier else after)
    frame.heading("From one version to another")
    with st.container(horizontal=True, key="compared"):
        for name, chosen in (("before", before), ("after", after)):
            options = numbers if chosen in numbers else [chosen, *numbers]
            key = f"{name}:{chosen}"
            st.selectbox(
                name, options, index=options.index(chosen), key=key, on_change=_follow, args=(name, key), width=140
            )
    for chosen in (before, after):
        if chosen not in numbers:
            frame.not_found("version", frame.in_address("before" if chosen == before else "after") or "")
            return
    if before == after:
        st.html('<span class="quiet">One version and itself: nothing differs.</span>')
        return
    found = data_backend.difference(split, before, after)
    frame.notice(found)
    if found.value is not None:
        _difference(found.value)


def _follow(name: str, key: str) -> None:
    st.query_params.from_dict(data_rows.here(**{name: str(st.session_state[key])}))


def _difference(found: "Difference") -> None:
    st.html(report_view.facts({kind: number(getattr(found, kind)) for kind in KINDS}, large=True))
    if found.problem:
        frame.say(html("{problem}", problem=found.problem), "error")
    elif found.moved:
        frame.say(html("A version between them started over: that rows moved is no mistake."))
    for kind, meaning in KINDS.items():
        rows = found.ids.get(kind) or []
        if rows:
            label = f"{kind}: {meaning} ({len(rows)} of {number(getattr(found, kind))} shown)"
            with st.expander(label, key=f"different-{kind}"):
                st.html(_rows(rows))


def _rows(rows: list[dict[str, Any]]) -> Markup:
    lines = [
        html(
            '<tr><td class="mono">{id}</td><td>{side}</td><td>{group}</td><td class="wide">{text}</td></tr>',
            id=row["id"][:12],
            side=f"{row['before']} → {row['split']}" if "before" in row else row["split"],
            group=row["group"] or "",
            text=row["text"],
        )
        for row in rows
    ]
    head = Markup("<tr><th>id</th><th>side</th><th>group</th><th>text</th></tr>")
    return html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(lines))
