"""Sweeps: the searches of a recipe; the one in the address with its trials, charts and controls."""

from typing import Any

import streamlit as st

from pipelines.search.listing import SweepLine
from ui.panel import frame, sweep_controls, sweep_view, sweeps_backend
from ui.panel.markup import age, html, number

LIVE_S, LIST_S = 3, 10
SHOWN = 30


def sweeps() -> None:
    """The page."""
    recipe_name, name = frame.in_address("recipe"), frame.in_address("sweep")
    if not name:
        _list(recipe_name)
        return
    frame.go("All sweeps", "to-sweeps", recipe=recipe_name)
    found = sweeps_backend.sweep(name)
    view, chosen = found.value, frame.in_address("trial") or ""
    if view is None:
        frame.notice(found)
        if not found.problem:
            frame.not_found("sweep", name)
        return
    if chosen and chosen not in view.standing.trials:
        frame.say(html("The sweep has no trial called <b>{trial}</b>.", trial=chosen[:300]), "warning")
        chosen = ""
    pace = None if view.standing.closed and not found.problem else LIVE_S
    drawn = sweep_controls.signature(view, chosen)
    st.fragment(_top, run_every=pace)(name, chosen, drawn)
    # Whoever fills in a form is not interrupted: it is drawn anew only when what it may ask changes.
    st.fragment(sweep_controls.show)(view, chosen)
    st.fragment(_below, run_every=pace)(name, chosen)


@st.fragment(run_every=LIST_S)
def _list(recipe_name: str | None) -> None:
    found = sweeps_backend.sweeps(recipe_name)
    frame.heading("Sweeps", f"searches of {recipe_name}" if recipe_name else "searches")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            _nothing_yet(recipe_name)
        return
    with st.container(key="sweeps", gap="xsmall"):
        for line in found.value[:SHOWN]:
            _row(line)
    if len(found.value) > SHOWN:
        st.html(html('<span class="quiet">{n} older ones.</span>', n=number(len(found.value) - SHOWN)))


def _row(line: SweepLine) -> None:
    looks, state = ("open", "over") if line.closed else ("running", "goes on")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        frame.go(line.sweep, f"to-sweep-{line.sweep}", recipe=line.recipe_name, sweep=line.sweep)
        st.html(
            html(
                '<div class="line"><span class="verdict {looks}">{state}</span><span class="quiet">{ended} of {trials} '
                'trials have ended</span><span class="quiet">opened {opened}, last heard of {last}</span></div>',
                looks=looks,
                state=state,
                ended=line.ended,
                trials=line.trials,
                opened=age(line.opened_at),
                last=age(line.last_at),
            )
        )


def _nothing_yet(recipe_name: str | None) -> None:
    st.html(
        '<div class="empty"><h1>Nothing was searched yet</h1><p>A sweep tries hyper-parameters in short trials and '
        "stops the worse ones early; this page shows them while they learn, and lets you stop, clone and add trials."
        "</p><pre>sluice sweep RECIPE</pre></div>"
    )
    with st.container(horizontal_alignment="center"):
        st.page_link(
            frame.PAGES["Launch"],
            label="**Launch a sweep**",
            icon=":material/play_arrow:",
            query_params=frame.address(recipe=recipe_name),
        )


def _top(name: str, chosen: str, drawn: tuple[Any, ...]) -> None:
    found = sweeps_backend.sweep(name)
    frame.notice(found)
    view = found.value
    if view is None:
        return
    if drawn != sweep_controls.signature(view, chosen):
        # What may be asked has changed: the controls follow.
        st.rerun()
    sweep_view.head(view)
    run_id = view.standing.plan.get("run_id")
    if run_id:
        parameters = frame.address(recipe=view.recipe_name, run=str(run_id))
        st.page_link(frame.PAGES["Runs"], label="Its tracked run", query_params=parameters)
    sweep_view.table(view, chosen)
    sweep_view.requests(view)


def _below(name: str, chosen: str) -> None:
    view = sweeps_backend.sweep(name).value
    if view is not None:
        sweep_view.charts(view, chosen)


sweeps()
