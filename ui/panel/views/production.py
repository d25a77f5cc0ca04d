"""Production: what answers the users of each recipe, and how; the log of what did, and the way back to any of it."""

import streamlit as st

from ui.panel import frame, production_backend, production_view
from ui.panel.markup import html, number

LIVE_S = 5
ANSWERS_S = 15
"""Summed up anew only so often: it reads more than a line each recipe."""
SHOWN = 50


def production() -> None:
    """The page."""
    recipe_name = frame.in_address("recipe")
    if recipe_name is None:
        st.fragment(frame.wait_for_a_recipe, run_every=LIVE_S)()
        return
    production_view.said()
    named = frame.in_address("deployment")
    if named:
        _deployment(recipe_name, named)
        return
    _in_force()
    _service(recipe_name)
    _answers(recipe_name)
    _log(recipe_name)


@st.fragment(run_every=LIVE_S)
def _in_force() -> None:
    found = production_backend.in_force()
    frame.heading("In production", "what answers the users, a line each recipe")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            st.html('<span class="quiet">Nothing was promoted yet.</span>')
        return
    with st.container(key="in-force", gap="xsmall"):
        for one in found.value:
            production_view.in_force(one)


@st.fragment(run_every=LIVE_S)
def _log(recipe_name: str) -> None:
    found = production_backend.log(recipe_name)
    frame.heading("Deployment log", f"all that {recipe_name} ever had in production, nothing is ever taken out")
    frame.notice(found)
    if not found.value:
        if not found.problem:
            text = '<span class="quiet">Nothing yet: <span class="mono">sluice promote RECIPE</span> deploys it.</span>'
            st.html(text)
        return
    with st.container(key="deployments", gap="xsmall"):
        for place, deployment in enumerate(found.value[:SHOWN]):
            production_view.line(deployment, now=place == 0)
    if len(found.value) > SHOWN:
        st.html(html('<span class="quiet">{n} older ones.</span>', n=number(len(found.value) - SHOWN)))


@st.fragment(run_every=LIVE_S)
def _service(recipe_name: str) -> None:
    production_view.service(recipe_name)


@st.fragment(run_every=ANSWERS_S)
def _answers(recipe_name: str) -> None:
    found = production_backend.answers(recipe_name)
    frame.heading("Answers", f"to users in the last {production_backend.ANSWERS_HOURS} hours, by arm")
    frame.notice(found)
    if found.value:
        production_view.answers(found.value)
    elif not found.problem:
        st.html('<span class="quiet">None yet.</span>')


def _deployment(recipe_name: str, named: str) -> None:
    frame.go("All of production", "to-production", recipe=recipe_name)
    found = production_backend.log(recipe_name)
    frame.notice(found)
    rows = found.value or []
    wanted = frame.number_in_address("deployment")
    row = next((row for row in rows if row.number == wanted), None)
    if row is not None:
        production_view.show(row, now=rows[0])
    elif not found.problem:
        frame.not_found("deployment", named)


production()
