"""One experiment: its verdict, how far it has come, and what happened in it."""

from typing import Any

import streamlit as st
from markupsafe import Markup

from serve.experimentation.evidence import counted
from ui.panel import frame
from ui.panel.charts import COLOURS
from ui.panel.experiments_backend import ExperimentView, Told
from ui.panel.markup import age, html, joined, number, share

EVENTS_SHOWN = 40
LOOKS = {
    "better": "open",
    "harm": "closed",
    "worse": "closed",
    "blocked": "error",
    "non_inferior": "waived",
    "no_verdict": "none",
    "undecided": "not_yet",
    "promoted": "waived",
    "stopped": "info",
    "superseded": "info",
}
WORDS = {"non_inferior": "not worse", "no_verdict": "no verdict"}
STATES = {"running": "running", "paused": "waived", "ended": "info"}
SIDES = {"control": COLOURS["A"], "treated": COLOURS["B"]}


def outcome(name: str) -> Markup:
    """A verdict or an end as a shape and a word."""
    return mark(LOOKS.get(name, "none"), WORDS.get(name, name))


def state(about: dict[str, Any]) -> Markup:
    """Running, paused, or how it ended."""
    if about["outcome"]:
        ended = about["outcome"]
        return mark(LOOKS.get(ended, "none"), f"ended: {WORDS.get(ended, ended)}")
    return mark(STATES.get(about["state"], "none"), about["state"])


def mark(looks: str, word: str) -> Markup:
    """A word with its shape."""
    return html('<span class="verdict {looks}">{word}</span>', looks=looks, word=word)


def head(view: ExperimentView) -> None:
    """What it is, the verdict in a sentence, whether somebody watches, and how far it has come."""
    about, look = view.about, view.look
    st.html(
        html(
            '<div class="line"><b>Experiment {number} of {recipe}</b>{state}'
            "<span>{treated} against {control} on {primary}</span>"
            '<span class="quiet">version {version}, started {started} by {by}</span></div>',
            number=view.number,
            recipe=about["recipe"],
            state=state(about),
            treated=about["treated"],
            control=about["control"],
            primary=about["primary"],
            version=about["version"],
            started=age(about["started"]),
            by=about["by"],
        )
    )
    st.html(
        html(
            '<div class="notice ruling {looks}">{outcome} <span>{sentence}.</span> <span class="quiet">{next}</span>'
            "</div>",
            looks=LOOKS.get(look["outcome"], "none"),
            outcome=outcome(look["outcome"]),
            sentence=look["sentence"],
            next=_next(view),
        )
    )
    _end(view)
    _progress(view)
    if view.live and not about["watched"]:
        text = (
            "<b>Nobody watches it:</b> nothing is rolled back, covered or ended by itself. Start "
            "<code>sluice serve RECIPE</code>, or <code>sluice experiment watch RECIPE</code>."
        )
        frame.say(html(text), "warning")
    for metric, count in look["set_aside"].items():
        text = "{metric}: {n} events are of users who were in no arm when they happened; they do not count."
        frame.say(html(text, metric=metric, n=number(count)), "info")


def _end(view: ExperimentView) -> None:
    """How it ended: what its figures say by now, above, may be another thing."""
    for told in view.events:
        if told.action in ("end", "promote"):
            text = '<div class="break"><span class="quiet">{what} {age} by {by}:</span> {sentence}</div>'
            what = "Ended" if told.action == "end" else "Promoted"
            st.html(html(text, what=what, age=age(told.at), by=told.by, sentence=told.sentence))


def _next(view: ExperimentView) -> str:
    """What follows by itself, or waits for a person."""
    if not view.live:
        return ""
    if view.look["outcome"] == "better" and view.section.on_better == "wait":
        return "A person promotes it; until then both arms go on as they are."
    return "Paused: nobody new comes in." if view.about["state"] == "paused" else ""


def _progress(view: ExperimentView) -> None:
    """Units by arm beside the planned ones, coverage and who watches."""
    about, met = view.about, counted(view.look)
    bars, told = [], []
    for side, colour in SIDES.items():
        units = met.get(about[side], 0)
        width = min(100.0, 100 * units / about["planned"])
        bars.append(html('<i style="width:{width:.2f}%;background:{colour}"></i>', width=width, colour=colour))
        text = '<span class="nums"><span class="dot" style="background:{colour}"></span>{arm} <b>{units}</b></span>'
        told.append(html(text, colour=colour, arm=about[side], units=number(units)))
    told.append(html('<span class="nums">of <b>{planned}</b> planned units</span>', planned=number(about["planned"])))
    higher = [coverage for coverage in view.section.coverages if coverage > about["coverage"]]
    later = f", later {', '.join(share(coverage) for coverage in higher)}" if higher and view.live else ""
    covered = '<span><b>{now}</b> of all users take part<span class="quiet">{later}</span></span>'
    told.append(html(covered, now=share(about["coverage"]), later=later))
    if view.live and about["watched"]:
        told.append(mark("open", "watched"))
    st.html(
        html(
            '<div class="progress" role="img" aria-label="Units beside the planned ones">{bars}</div>'
            '<div class="line">{told}</div>',
            bars=joined(bars),
            told=joined(told),
        )
    )


def events(view: ExperimentView, *, with_looks: bool) -> None:
    """What happened, the newest first."""
    shown = [told for told in view.events if with_looks or told.action != "look"]
    rows = [_event(told) for told in shown[:EVENTS_SHOWN]]
    head = Markup("<tr><th>when (UTC)</th><th>what</th><th>by</th><th></th></tr>")
    st.html(
        html(
            '<div class="scroll"><table class="grid happened">{head}{rows}</table></div>', head=head, rows=joined(rows)
        )
    )
    if len(shown) > EVENTS_SHOWN:
        more = number(len(shown) - EVENTS_SHOWN)
        text = '<span class="quiet">{more} earlier: <span class="mono">sluice experiment history RECIPE</span></span>'
        st.html(html(text, more=more))


def _event(told: Told) -> Markup:
    return html(
        '<tr><td class="quiet nums when">{at}</td><td>{action}</td><td><span class="clip who" title="{by}">{by}</span>'
        '</td><td class="wide">{sentence}</td></tr>',
        at=f"{told.at:%Y-%m-%d %H:%M:%S}",
        action=told.action,
        by=told.by,
        sentence=told.sentence,
    )
