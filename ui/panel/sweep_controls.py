"""What people ask of a sweep: stop, pause, resume and clone a trial, add one, extend the budget."""

from typing import Any

import streamlit as st

from pipelines.fingerprint import fingerprint, short
from pipelines.search.reading import told
from ui.panel import frame, sweep_view, sweeps_backend
from ui.panel.markup import html, visible
from ui.panel.recipe_changes import value_at
from ui.panel.recipe_form import Form
from ui.panel.sweeps_backend import SweepView

SAID = "sweep-said"
"""What came of the last click, until the next."""
ICONS = {"stop": "stop", "pause": "pause", "resume": "play_arrow"}
WORDS = {
    "stop": "for good; what it has learnt counts",
    "pause": "after its present turn",
    "resume": "from where it is",
}


def signature(view: SweepView, chosen: str) -> tuple[Any, ...]:
    """What the controls depend on: when it changes, they are drawn anew."""
    trial = view.standing.trials.get(chosen)
    return bool(view.standing.closed), trial and (trial.state, bool(trial.chunks)), bool(chosen)


def show(view: SweepView, chosen: str) -> None:
    """The controls of a sweep that goes on; of one that is over, the way to more trials."""
    if view.standing.closed:
        if chosen:
            _trial_line(view, chosen)
        text = "The search is over. Change the recipe's sweep section and launch <code>sweep</code> for more trials."
        st.html(f'<span class="quiet">{text}</span>')
        st.page_link(
            frame.PAGES["Launch"], label="Launch it again", query_params=frame.address(recipe=view.recipe_name)
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="sweep-by"):
        st.text_input("Your name", key="reviewer", max_chars=255, width=240)
        st.html(
            '<span class="quiet">The history keeps who asked; the driver&#39;s answers stand above.</span>',
            width="content",
        )
    if said := st.session_state.pop(SAID, None):
        frame.notice(said)
    trial, add, extend = st.tabs([visible(chosen) if chosen else "A trial", "Add a trial", "Extend"])
    with trial:
        if chosen:
            _trial(view, chosen)
        else:
            st.html('<span class="quiet">Pick a trial in the table to stop, pause or clone it.</span>')
    with add:
        _values(view, "add", "")
    with extend:
        _extend(view)


def _trial_line(view: SweepView, chosen: str) -> None:
    row = next(row for row in view.rows if row.trial == chosen)
    st.html(
        html(
            '<div class="line"><b>{trial}</b>{state}<span>{values}</span><span class="quiet">{because}</span></div>',
            trial=chosen,
            state=sweep_view.state(row.state),
            values=told(row.values),
            because=row.because,
        )
    )


def _trial(view: SweepView, chosen: str) -> None:
    _trial_line(view, chosen)
    possible = [action for action in ICONS if not sweeps_backend.refusal(view, action, chosen)]  # type: ignore[arg-type]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trial-actions"):
        for action in possible:
            st.button(
                action.capitalize(),
                icon=f":material/{ICONS[action]}:",
                key=f"{action}-{chosen}",
                help=WORDS[action],
                on_click=_ask,
                args=(view, action, chosen),
            )
    # Asked with a value that is always sound: what speaks against any clone of this trial.
    refused = sweeps_backend.refusal(view, "clone", chosen, values={"weight_decay": 0.0})
    if refused:
        st.html(html('<span class="quiet">It cannot be cloned: {why}</span>', why=refused))
    else:
        frame.heading("Clone", f"goes on from the weights of {chosen} with the values that you change")
        _values(view, "clone", chosen)


def _values(view: SweepView, action: Any, parent: str) -> None:
    """Fields with the parent's values (or the recipe's), what differs, and the button."""
    before = {"train": sweeps_backend.start_values(view, parent)}
    form = Form(before, f"{action}-{short(fingerprint(view.sweep, parent, before))}")
    first, others = sweeps_backend.keys(view, clone=action == "clone")
    form.show_keys([f"train.{key}" for key in first])
    with st.expander("Other keys of train"):
        form.show_keys([f"train.{key}" for key in others])
    changed = {
        key.removeprefix("train."): value for key, value in form.entered.items() if value != value_at(before, key)
    }
    why = "; ".join(form.problems)
    if changed and not why:
        why = sweeps_backend.refusal(view, action, parent, values=changed)
    with st.container(horizontal=True, vertical_alignment="center", key=f"{action}-do"):
        st.button(
            "Clone it" if action == "clone" else "Add it",
            type="primary",
            icon=":material/add:",
            key=f"do-{action}-{parent}",
            disabled=not changed or bool(why),
            on_click=_ask,
            args=(view, action, parent),
            kwargs={"values": changed},
        )
        differs = told(changed) if changed else "nothing yet"
        st.html(html('<span class="quiet">What differs: </span>{differs}', differs=differs), width="content")
    if why:
        frame.say(html("<b>Not yet a trial:</b> {why}", why=why), "error")


def _extend(view: SweepView) -> None:
    plan = view.standing.plan
    asked: dict[str, Any] = {}
    with st.container(horizontal=True, vertical_alignment="bottom", key="extend-fields"):
        if plan.get("search") != "grid":
            now = plan.get("num_samples", 0)
            asked["trials"] = st.number_input(f"Trials more (now {now})", 0, 512, 0, key="extend-trials", width=200)
        for name, key, unit in (("hours", "max_hours", "h"), ("cost", "max_cost", "")):
            if plan.get(key) is not None:
                label = f"{name.capitalize()} more (now {plan[key]:g}{unit and f' {unit}'})"
                asked[name] = st.number_input(label, 0.0, value=0.0, step=1.0, key=f"extend-{name}", width=200)
        asked = {name: value for name, value in asked.items() if value}
        st.button(
            "Extend",
            type="primary",
            icon=":material/add:",
            key="do-extend",
            disabled=not asked,
            on_click=_ask,
            args=(view, "extend", ""),
            kwargs=asked,
        )
    if plan.get("search") == "grid" and plan.get("max_hours") is None and plan.get("max_cost") is None:
        st.html('<span class="quiet">A grid has no further points, and no limit of hours or cost.</span>')


def _ask(view: SweepView, action: Any, trial: str, **content: Any) -> None:
    """Ask; what came of it is shown above the controls, or stands among the requests."""
    by = str(st.session_state.get("reviewer") or "")
    done = sweeps_backend.ask(view, action, trial, by, **content)
    if done.problem:
        st.session_state[SAID] = done
