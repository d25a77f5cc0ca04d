"""Experiments: candidates on live traffic; the one in the address with its verdict, figures and controls."""

from typing import Any

import streamlit as st

from ui.panel import (
    experiment_controls,
    experiment_figures,
    experiment_form,
    experiment_view,
    experiments_backend,
    frame,
)
from ui.panel.markup import age, html, number

LIVE_S, LIST_S = 5, 10
SHOWN = 30


def experiments() -> None:
    """The page."""
    recipe_name, named = frame.in_address("recipe"), frame.in_address("experiment")
    if frame.in_address("view") == "new":
        experiment_form.show(recipe_name)
        return
    if not named:
        _list(recipe_name)
        return
    frame.go("All experiments", "to-experiments", recipe=recipe_name)
    experiment_id = frame.number_in_address("experiment")
    found = experiments_backend.experiment(experiment_id)
    view = found.value
    if view is None:
        frame.notice(found)
        if not found.problem:
            frame.not_found("experiment", named)
        return
    pace = LIVE_S if view.live or found.problem else None
    st.fragment(_top, run_every=pace)(experiment_id, experiment_controls.signature(view))
    # Whoever writes a reason is not interrupted: the controls are drawn anew only when what may be asked changes.
    st.fragment(experiment_controls.show)(view)
    st.fragment(_below, run_every=pace)(experiment_id)


@st.fragment(run_every=LIST_S)
def _list(recipe_name: str | None) -> None:
    found = experiments_backend.experiments(recipe_name)
    frame.heading("Experiments", f"candidates of {recipe_name} on live traffic" if recipe_name else "on live traffic")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            _nothing_yet(recipe_name)
        return
    frame.go("New experiment", "to-new-experiment", recipe=recipe_name, view="new")
    with st.container(key="experiments", gap="xsmall"):
        for about in found.value[:SHOWN]:
            _row(about)
    if len(found.value) > SHOWN:
        st.html(html('<span class="quiet">{n} older ones.</span>', n=number(len(found.value) - SHOWN)))


def _row(about: dict[str, Any]) -> None:
    name = str(about["experiment"])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        frame.go(f"Experiment {name}", f"to-experiment-{name}", recipe=about["recipe"], experiment=name)
        st.html(
            html(
                '<div class="line">{state}<span>{treated} against {control} on {primary}</span>'
                '<span class="quiet">{recipe} version {version}</span>'
                '<span class="quiet">{planned} units planned</span>'
                '<span class="quiet">started {started} by {by}</span></div>',
                state=experiment_view.state(about),
                treated=about["treated"],
                control=about["control"],
                primary=about["primary"],
                recipe=about["recipe"],
                version=about["version"],
                planned=number(about["planned"]),
                started=age(about["started"]),
                by=about["by"],
            )
        )


def _nothing_yet(recipe_name: str | None) -> None:
    st.html(
        '<div class="empty"><h1>Nothing was tried on live traffic yet</h1><p>An experiment lets some users meet the '
        "tuned model and others the base, and says at every look whether one is better, worse or harmful, however "
        "often one looks. What does harm is rolled back within seconds.</p><pre>sluice experiment start RECIPE</pre>"
        "</div>"
    )
    with st.container(horizontal_alignment="center"):
        frame.go("**New experiment**", "to-new-experiment", recipe=recipe_name, view="new")


def _top(experiment_id: int, drawn: tuple[Any, ...]) -> None:
    found = experiments_backend.experiment(experiment_id)
    frame.notice(found)
    view = found.value
    if view is None:
        return
    if drawn != experiment_controls.signature(view):
        # What may be asked has changed: the controls follow.
        st.rerun()
    experiment_view.head(view)
    experiment_figures.metrics(view)


def _below(experiment_id: int) -> None:
    view = experiments_backend.experiment(experiment_id).value
    if view is None:
        return
    left, right = st.columns([1.6, 1], gap="large")
    with left:
        experiment_figures.narrowing(view)
    with right:
        experiment_figures.sample_ratio(view)
        st.page_link(
            frame.PAGES["Production"], label="In production", query_params=frame.address(recipe=view.recipe_name)
        )
    with_looks = frame.in_address("looks") == "too"
    kept = sum(told.action == "look" for told in view.events)
    frame.heading("What happened")
    if kept:
        label = "Hide the looks" if with_looks else f"Show the looks too ({number(kept)})"
        frame.go(
            label,
            "to-looks",
            recipe=view.recipe_name,
            experiment=str(experiment_id),
            looks=None if with_looks else "too",
        )
    experiment_view.events(view, with_looks=with_looks)


experiments()
