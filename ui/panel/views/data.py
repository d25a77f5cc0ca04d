"""Data: the audit, rows, repeats, suspects, what is kept aside, the split's leaks and versions; a view an address."""

from collections.abc import Callable

import streamlit as st

from ui.panel import (
    backend,
    data_anomalies,
    data_aside,
    data_audit,
    data_backend,
    data_browse,
    data_clusters,
    data_leakage,
    data_versions,
    frame,
)
from ui.panel.data_backend import Opened
from ui.panel.markup import html

REFRESH_S = 5
VIEWS: dict[str, tuple[str, Callable[[Opened], None]]] = {
    "audit": ("Audit", data_audit.audit),
    "browse": ("Browse", data_browse.browse),
    "clusters": ("Clusters", data_clusters.clusters),
    "anomalies": ("Anomalies", data_anomalies.anomalies),
    "aside": ("Kept aside", data_aside.aside),
    "leakage": ("Leakage", data_leakage.leakage),
    "versions": ("Versions", data_versions.versions),
}
OF_THE_REPORTS = ("audit", "aside", "leakage", "versions")
"""Views that say something without the corpus, too."""


def data() -> None:
    """The page."""
    recipe_name, view = frame.in_address("recipe"), frame.in_address("view") or "audit"
    if recipe_name is None:
        _wait_for_a_recipe()
        return
    if view not in VIEWS:
        frame.not_found("view of the data", view)
        return
    found = data_backend.opened(recipe_name)
    frame.notice(found)
    if found.value is None:
        if not found.problem:
            _never_audited(recipe_name)
        return
    _tabs(recipe_name, view)
    if not found.value.here:
        frame.say(
            html(
                "The corpus and the evidence of this audit are not on this machine: they are caches, made again by "
                "<code>sluice audit RECIPE --fresh</code> here."
            ),
            "warning",
        )
        if view not in OF_THE_REPORTS:
            return
    with st.container(key=f"data-{view}", gap="small"):
        VIEWS[view][1](found.value)


@st.fragment(run_every=REFRESH_S)
def _wait_for_a_recipe() -> None:
    frame.wait_for_a_recipe()


def _never_audited(recipe_name: str) -> None:
    if recipe_name in [recipe.name for recipe in backend.recipes().value or []]:
        st.html('<span class="quiet">Not audited yet: <span class="mono">sluice audit RECIPE</span>.</span>')
    else:
        frame.not_found("recipe", recipe_name)


def _tabs(recipe_name: str, active: str) -> None:
    with st.container(horizontal=True, key="tabs"):
        for view, (title, _) in VIEWS.items():
            label = f"**{title}**" if view == active else title
            frame.go(label, f"to-view-{view}", recipe=recipe_name, view=view if view != "audit" else None)


data()
