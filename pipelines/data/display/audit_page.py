"""The audit as one HTML file for people: no script, no reference to anything outside, every text inert."""

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipelines.data.corpus import Corpus
from pipelines.data.display.audit_plots import headline, plots_of
from pipelines.data.display.audit_tables import Table, draw_table, tables_of, token_tables
from pipelines.data.display.page_evidence import clusters, cut, section, suspects
from pipelines.data.display.plots import Plot, draw
from pipelines.data.display.view import View
from pipelines.data.evidence import Evidence
from pipelines.fingerprint import short
from pipelines.gates import Finding, Gate, Report
from pipelines.markup import html, joined, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORDS = {"not_applicable": "not applicable"}


def audit_page(
    report: Report,
    evidence: Evidence,
    corpus: Corpus | None = None,
    decided: "NDArray[np.int64] | None" = None,
) -> str:
    """The page of an audit's report; samples, suspects and clusters are masked unless the recipe allows all.

    Suspects that people `decided` about are not shown: row numbers.
    """
    corpus = corpus or Corpus(Path(evidence.note.corpus))
    view = View(corpus, evidence, masked_kinds(report.recipe))
    css = Path(__file__).with_name("audit_page.css").read_text("utf-8")
    body = joined(
        [
            _head(report),
            _gates(report.gates),
            _findings(report.findings),
            _plots(plots_of(report.figures)),
            joined([_table(table) for table in token_tables(report.figures)]),
            _origins(report.figures),
            joined([_table(table) for table in tables_of(report.figures)]),
            suspects(view, decided),
            clusters(view),
            _foot(report),
        ]
    )
    # The style is allowed by its hash, and nothing else is: no script, no picture, no form, no connection.
    allowed = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return str(
        html(
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer"><title>Audit of {name}</title><style>{css}</style></head>'
            "<body><main>{body}</main></body></html>\n",
            allowed=Markup(allowed),
            name=report.recipe_name,
            css=Markup(css),
            body=body,
        )
    )


def masked_kinds(recipe: dict[str, Any]) -> tuple[str, ...]:
    """Kinds of personal data that pages mask for this resolved recipe: all it looks for, unless it allows them."""
    private = (recipe.get("audit") or {}).get("private") or {}
    return () if private.get("action") == "allow" else tuple(private.get("kinds") or ())


def _head(report: Report) -> Markup:
    facts = [
        html("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value)
        for name, value in headline(report.figures).items()
    ]
    said = {
        "open": "Every gate is open: these examples are fit to learn from.",
        "waived": "What is closed was waived by a named person.",
        "closed": f"{len(report.closed_gates)} of {len(report.gates)} gates are closed.",
    }
    return html(
        '<header><span class="wordmark">Sluice</span> <span class="quiet">audit</span><h1>{name}</h1>'
        '<div>{verdict}</div><p>{said}</p><p class="quiet small">{time} UTC, {seconds} s, report '
        '<span class="mono">{key}</span></p><dl class="facts">{facts}</dl></header>',
        name=report.recipe_name,
        verdict=_verdict(report.verdict),
        said=said.get(report.verdict, ""),
        time=f"{report.created_at:%Y-%m-%d %H:%M}",
        seconds=number(round(report.seconds, 1)),
        key=short(report.key),
        facts=joined(facts),
    )


def _verdict(state: str) -> Markup:
    return html('<span class="verdict {state}">{word}</span>', state=state, word=_WORDS.get(state, state))


def _gates(gates: tuple[Gate, ...]) -> Markup:
    rows = [
        html(
            '<tr><td class="key">{gate}</td><td>{verdict}</td><td>{evidence}</td></tr>',
            gate=gate.gate,
            verdict=_verdict(gate.verdict),
            evidence=gate.evidence,
        )
        for gate in gates
    ]
    head = Markup("<tr><th>gate</th><th>verdict</th><th>evidence</th></tr>")
    return section("Gates", html('<div class="panel scroll"><table>{h}{r}</table></div>', h=head, r=joined(rows)))


def _findings(findings: tuple[Finding, ...]) -> Markup:
    if not findings:
        return Markup()
    body = html('<div class="panel">{all}</div>', all=joined([_finding(finding) for finding in findings]))
    return section("Findings", body, "worst first, each with what to do")


def _finding(finding: Finding) -> Markup:
    samples = Markup()
    if finding.samples:
        shown = joined([_sample(sample) for sample in finding.samples[:5]])
        samples = html("<details><summary>{n} samples</summary>{s}</details>", n=len(finding.samples[:5]), s=shown)
    return html(
        '<div class="finding"><div class="line">{severity}<span class="mono">{code}</span>'
        '<span class="quiet">{count}</span></div><div>{message}</div><div class="do">{remedy}</div>{samples}</div>',
        severity=_verdict(finding.severity),
        code=finding.code,
        count=number(finding.count),
        message=finding.message,
        remedy=finding.remedy,
        samples=samples,
    )


def _sample(sample: dict[str, Any]) -> Markup:
    pairs = [
        html("<dt>{name}</dt><dd>{value}</dd>", name=name.replace("_", " "), value=cut(_plain(value), 400))
        for name, value in sample.items()
    ]
    return html('<dl class="sample">{pairs}</dl>', pairs=joined(pairs))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plots(plots: Iterable[Plot]) -> Markup:
    drawn = [
        html(
            '<figure class="plot"><figcaption><h3>{title}</h3><span class="quiet small">{note}</span></figcaption>'
            "{svg}</figure>",
            title=plot.title,
            note=plot.note,
            svg=draw(plot),
        )
        for plot in plots
    ]
    return (
        section("What is in it", html('<div class="plots">{plots}</div>', plots=joined(drawn))) if drawn else Markup()
    )


def _origins(figures: dict[str, Any]) -> Markup:
    origins = [one for one in figures.get("origins") or [] if isinstance(one, dict)]
    if not origins:
        return Markup()
    names = list(origins[0])
    head = joined([html("<th{c}>{n}</th>", c=_number_class(origins[0][n]), n=n.replace("_", " ")) for n in names])
    rows = [
        html(
            "<tr>{cells}</tr>",
            cells=joined(
                [
                    html(
                        "<td{c}>{v}</td>",
                        c=_number_class(one.get(n)),
                        v=number(one[n]) if isinstance(one.get(n), int | float) else (one.get(n) or "not named"),
                    )
                    for n in names
                ]
            ),
        )
        for one in origins
    ]
    table = html('<div class="panel scroll"><table><tr>{h}</tr>{r}</table></div>', h=head, r=joined(rows))
    total = figures.get("origin_combinations", len(origins))
    note = f"the commonest {len(origins)} of {total:,} combinations" if total > len(origins) else ""
    return section("Where it comes from", table, note)


def _table(table: Table) -> Markup:
    return section(table.title, html('<div class="panel scroll">{t}</div>', t=draw_table(table)), table.note)


def _number_class(value: Any) -> Markup:
    return Markup(' class="n"') if isinstance(value, int | float) else Markup()


def _foot(report: Report) -> Markup:
    import yaml

    read = "".join(f"{name}: {short(value)}\n" for name, value in report.fingerprints.items())
    recipe = yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True)
    return html(
        '<footer class="small"><details><summary>What was read, and the resolved recipe</summary>'
        '<pre class="break">{read}</pre><pre class="break">{recipe}</pre></details></footer>',
        read=read,
        recipe=recipe,
    )
