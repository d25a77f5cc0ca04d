"""A new experiment: what the recipe says of it, what it will take, and the button that starts it."""

from datetime import UTC, datetime, timedelta

import streamlit as st

from cluster.errors import UserError
from pipelines.recipe import Recipe
from pipelines.recipe_file import load_recipe
from ui.panel import experiment_plans_backend, frame, recipe_choice, report_view
from ui.panel.experiment_plans_backend import Plan
from ui.panel.last_known import Known
from ui.panel.markup import html, number, share, visible
from ui.panel.recipe_changes import as_yaml

SAID = "experiment-form-said"
"""What came of the last click, until the next."""
EXAMPLE = """\
experiment:
  primary: {metric: event.resolved}      # what has to be better
  guardrails:                            # what must not be worse by more than its margin
    - {metric: requests.failed, per_unit: mean, margin: 0.01}
    - {metric: feedback.thumb_down, margin: 0.02}
  effect: {baseline: 0.30, difference: 0.04}   # the least difference that matters
  ramp: [0.02, 0.1, 0.5]                 # shares of all users, a day each, before all of them
"""


def show(recipe_name: str | None) -> None:
    """The whole page."""
    frame.go("All experiments", "to-experiments", recipe=recipe_name)
    frame.heading("New experiment", "the models in production against each other, on live traffic")
    with st.container(horizontal=True, vertical_alignment="bottom", key="experiment-from"):
        path = recipe_choice.chosen()
    if path is None:
        return
    try:
        recipe = load_recipe(path)
    except UserError as error:
        recipe_choice.refused(error)
        return
    if recipe.experiment is None:
        _how_to_write_one(recipe)
        return
    found = experiment_plans_backend.plan(recipe)
    left, right = st.columns([1, 1.2], gap="large")
    with left:
        frame.heading("The recipe's section", "fixed at the start")
        section = recipe.experiment.model_dump(mode="json", exclude_defaults=True)
        st.code(visible(as_yaml({"experiment": section})), language="yaml", wrap_lines=True)
    with right:
        frame.notice(Known(None, None, found.problem))
        if found.value:
            _expected(found.value)
            _start(recipe)


def _how_to_write_one(recipe: Recipe) -> None:
    text = (
        "<b>{name} describes no experiment.</b> Give its file such a section, and choose that file under "
        "<b>Start from</b>. The metrics are <code>event.NAME</code> (what <code>POST /v1/events</code> brings), "
        "<code>feedback.thumb_up</code>, <code>edited</code> and their like, and <code>requests.failed</code>, "
        "<code>slow</code>, <code>declined</code>, <code>cut</code>."
    )
    frame.say(html(text, name=recipe.name))
    st.code(EXAMPLE, language="yaml")


def _expected(plan: Plan) -> None:
    """What it will take, before anybody is asked to wait for it."""
    section, size = plan.section, plan.size
    frame.heading("What it will take", f"{section.treated} against {section.control} on {section.primary.metric}")
    shown = {"planned units": number(size.planned)}
    if size.power is not None and section.effect is not None:
        shown[f"power for {section.effect.difference:+g}"] = share(size.power)
    if size.expected is not None:
        shown["ends on average after"] = f"{number(size.expected)} units"
    if size.fixed is not None:
        shown["one test at the end"] = f"{number(size.fixed)} units"
    if plan.units_per_day:
        shown["new users a day"] = f"{plan.units_per_day:,.1f}"
    if plan.days is not None:
        at = datetime.now(UTC) + timedelta(days=plan.days)
        shown["planned units are in after"] = f"{number(plan.days)} days"
        shown["on about"] = f"{at:%Y-%m-%d}"
    st.html(report_view.facts(shown, large=True))
    if not plan.units_per_day:
        text = "No traffic is known yet: the days follow once the service has been asked."
        st.html(f'<span class="quiet">{text}</span>')


def _start(recipe: Recipe) -> None:
    if said := st.session_state.pop(SAID, None):
        frame.notice(said)
    with st.container(horizontal=True, vertical_alignment="bottom", key="experiment-start"):
        st.text_input("Your name", key="reviewer", max_chars=255, width=240)
        asked = st.button("Start", type="primary", icon=":material/play_arrow:", key="start-experiment")
    st.html(
        html(
            '<span class="quiet">{name} goes on answering: the service follows within ten seconds, and its watcher '
            "rolls back what does harm.</span>",
            name=recipe.name,
        )
    )
    if not asked:
        return
    made = experiment_plans_backend.start(recipe, str(st.session_state.get("reviewer") or ""))
    if made.value is None:
        st.session_state[SAID] = made
    else:
        st.query_params.from_dict(frame.address(recipe=recipe.name, experiment=str(made.value)))
    st.rerun()
