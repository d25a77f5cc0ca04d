"""The recipe to start from: the newest reported one, a shipped one, or a file. The address remembers the choice."""

from pathlib import Path

import streamlit as st

from cluster.errors import UserError
from ui.panel import frame, recipe_sources
from ui.panel.last_known import Known, problem_of
from ui.panel.markup import html, visible


def chosen() -> Path | None:
    """The file that the address names, chosen here; None when there is none, and the page says why."""
    recipe_name = frame.in_address("recipe")
    recorded = {recipe_sources.RECORDED: f"{recipe_name}, as last reported"} if recipe_name else {}
    shipped = {name: f"shipped: {name}" for name in recipe_sources.shipped()}
    options = recorded | shipped | {recipe_sources.FILE: "a file"}
    source = frame.in_address("from") or next(iter(options))
    # The key holds the value: when the address changes, the widget follows it.
    key = f"recipe-from:{recipe_name}:{source}"
    st.selectbox(
        "Start from",
        list(options | {source: options.get(source, source)}),
        list(options | {source: ""}).index(source),
        format_func=lambda name: visible(options.get(name, name)),
        key=key,
        on_change=lambda: _remember(st.session_state[key]),
        width=320,
    )
    named = frame.in_address("path") or ""
    if source == recipe_sources.FILE:
        named = st.text_input(
            "Recipe file", named, placeholder="/home/jane/recipe.yaml", key=f"recipe-path:{named}", width=420
        )
        if named != (frame.in_address("path") or ""):
            _remember(source, named)
            st.rerun()
        if not named:
            frame.say(html("Name a recipe file of this machine; <code>sluice init</code> writes one."))
            return None
    try:
        return recipe_sources.path_of(source, recipe_name, named)
    except UserError as error:
        refused(error)
        return None


def refused(error: UserError) -> None:
    """Say what keeps the recipe from being read."""
    frame.notice(Known(None, None, problem_of(error, "The recipe", "Start from another one.")))


def _remember(source: str, path: str | None = None) -> None:
    # In one go: each change is an entry of the browser's history.
    kept = {name: value for name, value in st.query_params.to_dict().items() if name not in ("from", "path")}
    st.query_params.from_dict(kept | {"from": source} | frame.address(path=path))
