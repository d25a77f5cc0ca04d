"""What people ask of an experiment: pause, resume, cover more users, promote, stop; each with who and why."""

from typing import Any

import streamlit as st

from ui.panel import experiments_backend, frame
from ui.panel.experiments_backend import Action, ExperimentView
from ui.panel.last_known import Known
from ui.panel.markup import html, share

SAID = "experiment-said"
"""What came of the last click, until the next."""
ASKED = "experiment-asked"
"""How often something was asked for."""


def signature(view: ExperimentView) -> tuple[Any, ...]:
    """What the controls depend on: when it changes, they are drawn anew."""
    return view.possible, view.about["coverage"], view.look["outcome"]


def show(view: ExperimentView) -> None:
    """The controls; of an experiment that nothing can be asked of any more, why."""
    if view.possible:
        with st.container(horizontal=True, vertical_alignment="bottom", key="experiment-by"):
            st.text_input("Your name", key="reviewer", max_chars=255, width=240)
            st.text_input("Because", key=_because(view), max_chars=1000, width="stretch")
    _told(st.session_state.get(SAID))
    if view.possible:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="experiment-actions"):
            _actions(view)
    elif not view.newest:
        st.html('<span class="quiet">A newer experiment has followed: this one is history.</span>')
    # Not before: the click that it tells of draws the whole page once more.
    st.session_state.pop(SAID, None)


def _actions(view: ExperimentView) -> None:
    if "pause" in view.possible:
        _button(view, "pause", "Pause", "pause", help="Nobody new comes in; who has met an arm goes on meeting it.")
    if "resume" in view.possible:
        _button(view, "resume", "Resume", "play_arrow", help="New users come in again.")
    if "cover" in view.possible:
        _cover(view)
    if "promote" in view.possible:
        _promote(view)
    if "stop" in view.possible:
        _stop(view)


def _told(said: Known[str] | None) -> None:
    if said is None:
        return
    if said.value:
        frame.say(html("<b>Done.</b> {told}", told=said.value), "open")
    frame.notice(Known(None, None, said.problem))


def _because(view: ExperimentView) -> str:
    return f"because-{view.number}"


def _button(view: ExperimentView, action: Action, label: str, icon: str, coverage: float = 1.0, **options: Any) -> None:
    asked = st.button(
        label,
        icon=f":material/{icon}:",
        key=f"{action}-{view.number}",
        on_click=_ask,
        args=(view, action, coverage),
        **options,
    )
    if asked:
        # Within a fragment a click runs that alone.
        st.rerun()


def _popover(view: ExperimentView, label: str, icon: str) -> Any:
    # Another one after each click: an open one would cover what came of it.
    asked = st.session_state.get(ASKED, 0)
    return st.popover(label, icon=f":material/{icon}:", key=f"{icon}-{view.number}-{asked}")


def _cover(view: ExperimentView) -> None:
    now = view.about["coverage"]
    further = min((coverage for coverage in view.section.coverages if coverage > now), default=1.0)
    with _popover(view, "Cover more", "group_add"):
        st.html(html("{now} of all users take part now. It can only grow: nobody who is in moves.", now=share(now)))
        percent = st.number_input(
            "Percent of all users", 0.1, 100.0, 100 * further, step=5.0, format="%g", key=f"percent-{view.number}-{now}"
        )
        _button(view, "cover", "Cover", "group_add", percent / 100, type="primary")


def _promote(view: ExperimentView) -> None:
    treated, version = view.about["treated"], view.about["version"]
    with _popover(view, f"Promote {treated}", "rocket_launch"):
        if view.look["outcome"] != "better":
            text = (
                "<b>The gate is closed:</b> the verdict is not that {treated} is better. Promoted all the same, it "
                "needs the reason in <b>Because</b>, which is kept for ever."
            )
            frame.say(html(text, treated=treated), "error")
        text = (
            "<p><b>Every user</b> is answered by <b>{treated}</b> (version {version}) within ten seconds, those too "
            "who have met {control} so far{ends}. A holdout stays with base. <b>Production</b> takes it back.</p>"
        )
        ends = ", and the experiment ends" if view.live else ""
        st.html(html(text, treated=treated, version=version, control=view.about["control"], ends=ends))
        _button(view, "promote", f"Send everyone to {treated}", "rocket_launch", type="primary")


def _stop(view: ExperimentView) -> None:
    control = view.about["control"]
    with _popover(view, "Stop", "stop"):
        text = (
            "<p>It ends without a verdict, for good. <b>Every user</b> is answered by <b>{control}</b> within ten "
            "seconds, those too who have met {treated} so far.</p>"
        )
        st.html(html(text, control=control, treated=view.about["treated"]))
        _button(view, "stop", f"Stop, everyone back to {control}", "stop", type="primary")


def _ask(view: ExperimentView, action: Action, coverage: float) -> None:
    by, because = (str(st.session_state.get(key) or "") for key in ("reviewer", _because(view)))
    done = experiments_backend.ask(view, action, by, because, coverage)
    st.session_state[SAID] = done
    st.session_state[ASKED] = st.session_state.get(ASKED, 0) + 1
    if done.value:
        # The next step has a reason of its own.
        st.session_state[_because(view)] = ""
