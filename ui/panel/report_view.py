"""A report on the page: gates with evidence, findings with samples and remedies, figures, waivers, provenance."""

import json
import re
from typing import Any

import streamlit as st
from markupsafe import Markup

from pipelines.fingerprint import short
from pipelines.gates import Finding, Gate, Report, Waiver
from ui.panel.frame import heading
from ui.panel.markup import age, duration, html, joined, number, visible

WORDS = {"not_yet": "not yet", "not_in_recipe": "not in the recipe", "not_applicable": "not applicable"}
SAMPLES_SHOWN, PARTS_SHOWN = 5, 6
TEXT_SHOWN = 2000
"""Characters of one sample; the whole stands in the report's JSON."""


def verdict(state: str) -> Markup:
    """A verdict as a shape and a word."""
    return html('<span class="verdict {state}">{word}</span>', state=state, word=WORDS.get(state, state))


def show_report(report: Report) -> None:
    """The whole report."""
    gates(report.gates)
    waivers(report.waivers)
    findings(report.findings)
    figures(report.figures)
    if isinstance(report.figures.get("example"), dict):
        example(report.figures["example"])
    for which in ("best", "worst"):
        answers(f"{which.capitalize()} examples", report.figures.get(which))
    provenance(report)


def gates(decided: tuple[Gate, ...]) -> None:
    """The gates as a table: name, verdict, evidence."""
    if not decided:
        st.html('<span class="quiet">This stage decides no gate.</span>')
        return
    rows = [
        html(
            '<tr><td class="key">{gate}</td><td>{verdict}</td><td class="wide">{evidence}</td></tr>',
            gate=gate.gate,
            verdict=verdict(gate.verdict),
            evidence=gate.evidence,
        )
        for gate in decided
    ]
    head = Markup("<tr><th>gate</th><th>verdict</th><th>evidence</th></tr>")
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(rows)))


def planned_gates(names: tuple[str, ...], state: str, command: str) -> None:
    """The gates that a stage will decide, and the command that makes it."""
    rows = [
        html('<tr><td class="key">{name}</td><td>{verdict}</td></tr>', name=name, verdict=verdict(state))
        for name in names
    ]
    st.html(html('<table class="grid">{rows}</table>', rows=joined(rows)))
    if command:
        st.code(command, language=None)


def waivers(given: tuple[Waiver, ...]) -> None:
    """Who let which closed gate pass, and why."""
    if not given:
        return
    heading("Waivers", "recorded decisions; they travel with the model")
    rows = [
        html(
            '<tr><td class="key">{gate}</td><td>{by}</td><td class="wide">{because}</td>'
            '<td class="quiet">{created}</td><td class="quiet">{until}</td></tr>',
            gate=waiver.gate,
            by=waiver.by,
            because=waiver.because,
            created=f"{waiver.created_at:%Y-%m-%d %H:%M} UTC",
            until=f"until {waiver.until:%Y-%m-%d}" if waiver.until else "no end",
        )
        for waiver in given
    ]
    head = Markup("<tr><th>gate</th><th>by</th><th>because</th><th>on</th><th>valid</th></tr>")
    st.html(html('<div class="scroll"><table class="grid">{head}{rows}</table></div>', head=head, rows=joined(rows)))


def findings(found: tuple[Finding, ...]) -> None:
    """Each finding with its remedy and a few samples, as inert text."""
    if not found:
        return
    order = {"error": 0, "warning": 1, "info": 2}
    heading("Findings", f"{len(found)}")
    for finding in sorted(found, key=lambda finding: order[finding.severity]):
        st.html(_finding(finding))
        if finding.samples:
            with st.expander(f"{len(finding.samples)} samples" if len(finding.samples) > 1 else "1 sample"):
                _samples(finding.samples)


def _finding(finding: Finding) -> Markup:
    remedy = html('<div class="do">{remedy}</div>', remedy=finding.remedy) if finding.remedy else Markup()
    return html(
        '<div class="finding"><div class="line">{severity}<span class="mono">{code}</span>'
        '<span class="quiet nums">{count}</span></div><div>{message}</div>{remedy}</div>',
        severity=verdict(finding.severity),
        code=finding.code,
        count=number(finding.count),
        message=finding.message,
        remedy=remedy,
    )


def _samples(samples: tuple[dict[str, Any], ...]) -> None:
    shown = [html('<div class="sample">{text}</div>', text=sample_text(s)) for s in samples[:SAMPLES_SHOWN]]
    if len(samples) > SAMPLES_SHOWN:
        more = number(len(samples) - SAMPLES_SHOWN)
        shown.append(html('<span class="quiet">{n} more in the report as JSON</span>', n=more))
    st.html(joined(shown))


def sample_text(sample: dict[str, Any]) -> str:
    """A sample as lines of `name: value`, cut where it is long."""
    lines = []
    for name, value in sample.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"{name}: {text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + '…'}")
    return "\n".join(lines)


def figures(values: dict[str, Any]) -> None:
    """The single figures, and those with a few named parts; what has more to it stands in the JSON below."""
    shown: dict[str, str] = {}
    for name, value in values.items():
        parts = value if isinstance(value, dict) and len(value) <= PARTS_SHOWN and name != "example" else {"": value}
        for part, figure in parts.items():
            if isinstance(figure, int | float | str | bool):
                shown[f"{name} {part}".strip()] = figure if isinstance(figure, str) else number(figure)
    if shown:
        heading("Figures")
        st.html(facts(shown))


def facts(values: dict[str, str], *, large: bool = False) -> Markup:
    """Names over figures in a grid."""
    pairs = [
        html("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name.replace("_", " "), value=value[:400])
        for name, value in values.items()
    ]
    return html('<dl class="facts {size}">{pairs}</dl>', size="large" if large else "", pairs=joined(pairs))


def example(shown: dict[str, Any]) -> None:
    """An example as training saw it, with the part that it learns to say marked."""
    heading("An example as the model saw it", "what it learns to say is marked")
    st.html(html('<div class="example">{text}</div>', text=masked(shown)))


def answers(title: str, compared: Any) -> None:
    """Test examples with the answers of base and tuned beside what people wrote."""
    rows = [one for one in compared if isinstance(one, dict)] if isinstance(compared, list) else []
    if not rows:
        return
    with st.expander(f"{title} ({len(rows)})"):
        st.html(joined([_answers(one) for one in rows]))


def _answers(compared: dict[str, Any]) -> Markup:
    def line(name: str) -> Markup:
        score = compared.get(f"{name}_score")
        told = html(" {score}", score=number(score)) if isinstance(score, int | float) else Markup()
        text = str(compared.get(name, ""))[:TEXT_SHOWN]
        return html(
            '<tr><td class="quiet">{name}{told}</td><td class="break">{text}</td></tr>', name=name, told=told, text=text
        )

    lines = joined([line(name) for name in ("prompt", "reference", "base", "tuned") if name in compared])
    return html('<div class="finding"><table class="grid">{lines}</table></div>', lines=lines)


def masked(shown: dict[str, Any]) -> Markup:
    """The example's text with the supervised spans marked; all of it inert."""
    text, supervised = str(shown.get("text", "")), str(shown.get("supervised_text", ""))
    # Every second piece stands between the marks; a text with such marks of its own does not add up.
    pieces = re.split("[\u27e6\u27e7]", str(shown.get("marked_text", "")))
    if "".join(pieces[1::2]) != supervised or "".join(pieces) != text:
        before, found, after = text.rpartition(supervised) if supervised else (text, "", "")
        pieces = [before, found, after]
    return joined(
        [html("<mark>{text}</mark>" if n % 2 else "{text}", text=piece) for n, piece in enumerate(pieces) if piece]
    )


def provenance(report: Report) -> None:
    """What the stage read and left, the resolved recipe, and the whole report."""
    with st.expander("Read and left"):
        st.html(_pairs("read", {name: short(value) for name, value in report.fingerprints.items()}))
        if report.produced:
            st.html(_pairs("left", report.produced))
    with st.expander("Resolved recipe"):
        st.code(visible(_yaml(report.recipe)), language="yaml", wrap_lines=True, height=360)
    with st.expander("The report as JSON"):
        text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
        st.code(visible(text), language="json", wrap_lines=True, height=420)


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _pairs(title: str, values: dict[str, str]) -> Markup:
    rows = [
        html('<tr><td class="quiet">{name}</td><td class="mono break">{value}</td></tr>', name=name, value=value)
        for name, value in values.items()
    ]
    return html(
        '<table class="grid"><tr><th colspan="2">{title}</th></tr>{rows}</table>', title=title, rows=joined(rows)
    )


def stamp(report: Report) -> str:
    """When, and how long it took."""
    return f"{age(report.created_at)}, {report.created_at:%Y-%m-%d %H:%M} UTC, took {duration(report.seconds)}"
