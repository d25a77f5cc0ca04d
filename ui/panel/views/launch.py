"""Launch: a recipe's form, what it changes, the command that comes of it, and the button that submits it."""

import shlex
from pathlib import Path
from typing import Any

import streamlit as st

from cluster.errors import UserError
from pipelines.fingerprint import fingerprint, short
from pipelines.recipe import Recipe
from pipelines.recipe_file import load_recipe
from pipelines.stages import SUMMARIES
from pipelines.submissions import command_words
from ui.panel import frame, jobs_backend, recipe_choice, report_view, sweeps_backend
from ui.panel.markup import duration, html, joined, number, visible
from ui.panel.recipe_changes import as_yaml, changes, overrides
from ui.panel.recipe_form import Form, parts

STAGE_WORDS = {"run": "Go from audit to promote, gate by gate; what was done already is not done again."}


def launch() -> None:
    """The page."""
    with st.container(horizontal=True, key="launch-from", vertical_alignment="bottom"):
        stage, path = _stage(), recipe_choice.chosen()
    if path is None:
        return
    try:
        before = load_recipe(path).model_dump(mode="json")
    except UserError as error:
        recipe_choice.refused(error)
        return
    form = Form(before, f"launch-{short(fingerprint(str(path), before))}")
    left, right = st.columns([1.65, 1], gap="large")
    with left:
        form.show()
    with right, st.container(key="launch-command"):
        _command(stage, path, changes(parts(), before, form.entered), form.problems)


def _stage() -> str:
    words = STAGE_WORDS | SUMMARIES
    return st.selectbox(
        "Stage",
        list(words),
        format_func=lambda name: f"{name}: {words[name]}",
        key="launch-stage",
        help="Each stage starts only on the passing reports of those before it; `run` makes what is missing.",
        width=420,
    )


def _command(stage: str, path: Path, changed: dict[str, Any], problems: list[str]) -> None:
    """What differs, the command, what is wrong with it, and the button."""
    frame.heading("What differs", f"{len(changed)} changed" if changed else "nothing: the recipe as it is")
    if changed:
        st.code(visible(as_yaml(changed)), language="yaml", wrap_lines=True)
    frame.heading("Command", "the same from a terminal")
    st.code(visible(shlex.join(command_words(stage, path, overrides(changed)))), language=None, wrap_lines=True)
    recipe_name = ""
    try:
        recipe = load_recipe(path, overrides(changed))
        recipe_name = recipe.name
        if stage in ("sweep", "run") and recipe.sweep:
            _expected(recipe)
    except UserError as error:
        problems = problems + problems_of(error)
    if problems:
        listed = joined([html("<li>{problem}</li>", problem=problem) for problem in problems])
        frame.say(html("<b>Not yet a recipe:</b><ul>{listed}</ul>", listed=listed), "error")
    if st.button("Submit", type="primary", icon=":material/play_arrow:", key="submit", disabled=bool(problems)):
        with st.spinner("Submitting: packing what the job needs, and handing it to Ray ..."):
            made = jobs_backend.submit(stage, path, overrides(changed))
        frame.notice(made)
        if made.value:
            st.switch_page(
                frame.PAGES["Jobs"], query_params=frame.address(recipe=recipe_name, job=made.value.submission_id)
            )
    st.html('<span class="quiet">The same request twice is one job: a second click joins the first.</span>')


def _expected(recipe: Recipe) -> None:
    """What the sweep will take, before anybody pays for it."""
    found = sweeps_backend.expected(recipe)
    if not (estimate := found.value):
        return
    frame.heading("The sweep will take", "at most" if estimate.at_most else "as expected")
    shown = {"trials": number(estimate.trials), "steps": number(estimate.steps)}
    shown["time"] = "unknown" if estimate.hours is None else duration(estimate.hours * 3600)
    if estimate.cost is not None:
        shown["cost"] = f"{estimate.cost:.2f}"
    st.html(report_view.facts(shown))
    if estimate.seconds_per_step is None:
        told = "No earlier work over this base tells how long a step takes."
    else:
        told = f"At {estimate.seconds_per_step:.2g} s a step, as earlier work over this base had it."
    st.html(html('<span class="quiet">{told}</span>', told=told))


def problems_of(error: UserError) -> list[str]:
    """The recipe's sentences, one for each problem."""
    listed = [line.removeprefix("  - ") for line in error.message.splitlines() if line.startswith("  - ")]
    return listed or [error.message]


launch()
