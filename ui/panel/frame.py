"""What every page shares: the header, the address, notices, the empty workspace and the not-found page."""

from datetime import datetime
from typing import Any

import streamlit as st
from markupsafe import Markup

from ui.panel import backend
from ui.panel.last_known import Known, Problem
from ui.panel.markup import age, html

PAGES = {
    "Overview": "views/overview.py",
    "Data": "views/data.py",
    "Launch": "views/launch.py",
    "Runs": "views/runs.py",
    "Sweeps": "views/sweeps.py",
    "Experiments": "views/experiments.py",
    "Production": "views/production.py",
    "Jobs": "views/jobs.py",
    "Try it": "views/try_it.py",
}


def in_address(name: str) -> str | None:
    """The parameter `name` of the address, or None."""
    return st.query_params.get(name) or None


def number_in_address(name: str, fallback: int = 0) -> int:
    """A whole number of the address; -1 where it is none."""
    text = in_address(name)
    if text is None:
        return fallback
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def address(**parameters: str | None) -> dict[str, str]:
    """Parameters of a link: those that have a value."""
    return {name: value for name, value in parameters.items() if value}


def go(label: str, key: str, **parameters: str | None) -> None:
    """A link within this page: it changes the address, and the address decides what is shown.

    `st.page_link` to the page one is on runs it with new parameters, but leaves the old address standing.
    """
    if st.button(label, key=key, type="tertiary", on_click=st.query_params.from_dict, args=(address(**parameters),)):
        # Within a fragment a click runs that alone.
        st.rerun()


def header(active: str) -> None:
    """The name, the pages and the choice of a recipe; the address is the one place that remembers it."""
    found = backend.recipes()
    names = [recipe.name for recipe in found.value or []]
    chosen = in_address("recipe")
    if chosen is None and names:
        chosen = names[0]
        st.query_params["recipe"] = chosen
    with st.container(horizontal=True, key="header", vertical_alignment="center"):
        st.html('<span class="wordmark">Sluice</span>', width="content")
        for title, page in PAGES.items():
            label = f"**{title}**" if title == active else title
            st.page_link(page, label=label, query_params=address(recipe=chosen))
        st.space("stretch")
        if names:
            _recipe_choice(names, chosen)
    notice(found)


def _recipe_choice(names: list[str], chosen: str | None) -> None:
    options = names if chosen in names or chosen is None else [chosen, *names]
    # The key holds the value: when the address changes (back, a link), the widget follows it.
    key = f"recipe:{chosen}"

    def follow() -> None:
        # In one go: each change is an entry of the browser's history.
        st.query_params.from_dict({"recipe": st.session_state[key]})

    st.selectbox(
        "Recipe",
        options,
        index=options.index(chosen) if chosen else 0,
        key=key,
        on_change=follow,
        label_visibility="collapsed",
        width=260,
    )


def notice(known: Known[Any]) -> None:
    """When the present state could not be read: why, what to do, and how old what is shown is."""
    if known.problem:
        st.html(_notice(known.problem, known.read_at))


def _notice(problem: Problem, read_at: datetime | None) -> Markup:
    shown = html("Shown below: the state of {age}.", age=age(read_at)) if read_at else Markup()
    return html(
        '<div class="notice" role="status"><b>{message}</b> {remedy} <span class="quiet">{shown}</span></div>',
        message=problem.message,
        remedy=problem.remedy,
        shown=shown,
    )


def say(text: Markup, kind: str = "info") -> None:
    """A quiet box with a sentence."""
    st.html(html('<div class="notice {kind}">{text}</div>', kind=kind, text=text))


def wait_for_a_recipe() -> None:
    """Of a page without one in its address: the first that there is, or what to do when nothing has run here yet."""
    found = backend.recipes()
    if found.value:
        # The header puts the first recipe into the address.
        st.rerun()
    if found.value is not None:
        empty_workspace()


def empty_workspace() -> None:
    """What to do when nothing has run here yet."""
    storage = backend.workspace().settings.storage
    st.html(
        html(
            '<div class="empty"><h1>Nothing has passed through here yet</h1>'
            "<p>The workspace <code>{storage}</code> holds no report. Write a recipe and audit its examples, "
            "or watch the demonstration go from real examples to a served model:</p>"
            "<pre>sluice init my-recipe.yaml\nsluice audit my-recipe.yaml</pre><pre>make demo</pre>"
            '<p class="quiet">This page follows by itself.</p></div>',
            storage=storage,
        )
    )


def not_found(what: str, name: str) -> None:
    """The page for an id that nothing answers to."""
    st.html(
        html(
            '<div class="empty"><h1>No such {what}</h1>'
            '<p>This workspace knows no {what} called <span class="mono break">{name}</span>. It may stand in '
            "another workspace (SLUICE_STORAGE), or the address was cut.</p></div>",
            what=what,
            name=name[:300],
        )
    )


def heading(title: str, note: str = "") -> None:
    """A small heading with a quiet note."""
    st.html(html('<h2 class="part">{title}<small>{note}</small></h2>', title=title, note=note))
