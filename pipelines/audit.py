"""`sluice audit`: are these examples fit to learn from?"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from pipelines import stage
from pipelines.data.anomaly.suspicion import suspicion
from pipelines.data.auditing.audit_gates import audit_gates
from pipelines.data.auditing.doubts import private_findings, suspect_findings
from pipelines.data.auditing.figures import figures_of
from pipelines.data.auditing.findings import (
    answer_findings,
    duplicate_findings,
    in_order,
    provenance_findings,
    schema_findings,
    size_findings,
    special_findings,
)
from pipelines.data.auditing.survey import Survey
from pipelines.data.auditing.tokens import further_tokenizers
from pipelines.data.keys import code_version, semantic_identity, tokenizer_identity
from pipelines.data.prepare import evidence_of, prepare
from pipelines.data.reading.quarantine import keep_aside
from pipelines.data.reading.read import dataset_fingerprint
from pipelines.fingerprint import fingerprint
from pipelines.gates import Report, Verdict, report_key
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.review import said
from pipelines.stage import Outcome, Stage
from pipelines.stages import GATES, SUMMARIES
from pipelines.workspace import Workspace

AUDIT_VERSION = 2
"""Raise it when the same evidence gives other figures, findings or verdicts."""


def reads(recipe: Recipe, workspace: Workspace, dataset: str | None = None) -> dict[str, str]:
    """The data, the rules, the shares and seed of a simulated split, what people decided, the models, the code.

    `dataset`: the data's fingerprint where it is known already.
    """
    return {
        "dataset": dataset or dataset_fingerprint(recipe),
        "audit": fingerprint(recipe.audit.model_dump(mode="json", exclude={"tokenizers"})),
        "shares": fingerprint(recipe.split.model_dump(mode="json", include={"train", "test"}), recipe.seed),
        "reviews": fingerprint(said(workspace, recipe.name)),
        "tokenizers": fingerprint([tokenizer_identity(each) for each in (recipe.base, *recipe.compared_tokenizers)]),
        "version": f"{AUDIT_VERSION}.{code_version()}",
    } | ({"semantic_model": meaning} if (meaning := semantic_identity(recipe, workspace)) else {})


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Read every row once, keep aside what is none, and look at the rest."""
    started = time.monotonic()
    corpus = prepare(recipe, workspace, progress, fresh=fresh, tokens=True)
    evidence = evidence_of(recipe, workspace, progress, fresh=fresh, corpus=corpus)
    kinds = recipe.audit.private.kinds
    keep_aside(workspace, corpus.note.dataset, corpus.bad, kinds)
    decided = said(workspace, recipe.name)
    kept, dropped = corpus.rows_with_ids(decided["keep"]), corpus.rows_with_ids(decided["drop"])
    survey = Survey(corpus, evidence, recipe.dataset.instruction, kinds, kept, dropped)
    suspects = suspicion(evidence, kept, dropped)
    random_split = survey.random_split(recipe.split.train, recipe.split.test, recipe.seed)
    figures = figures_of(survey, suspects, random_split, recipe.audit.context_sizes)
    figures["tokenizers"] = further_tokenizers(
        survey, recipe.compared_tokenizers, recipe.audit.context_sizes, workspace
    )
    gates = audit_gates(recipe, survey, figures)
    threshold = recipe.audit.near_duplicate_threshold
    duplicates_hold = next(gate for gate in gates if gate.gate == "data.duplicates").verdict is Verdict.OPEN
    findings = in_order(
        [
            *schema_findings(survey, figures),
            *size_findings(survey, figures, recipe.audit.min_examples),
            *provenance_findings(survey),
            *duplicate_findings(survey, figures, random_split.pairs, threshold, holds=duplicates_hold),
            *answer_findings(survey),
            *special_findings(survey),
            *suspect_findings(survey, suspects),
            *private_findings(survey, recipe.audit.private.action),
        ]
    )
    read = reads(recipe, workspace, corpus.note.dataset) | {"reviews": fingerprint(decided)}
    page = evidence.page(report_key(STAGE.name, read))
    produced = {"corpus": str(corpus.folder), "evidence": str(evidence.folder), "page": str(page)}
    outcome = Outcome(gates, findings, figures, produced, read={"dataset": read["dataset"], "reviews": read["reviews"]})
    _write_page(outcome, read, recipe, survey, time.monotonic() - started)
    return outcome


def _write_page(outcome: Outcome, read: dict[str, str], recipe: Recipe, survey: Survey, seconds: float) -> None:
    """The report as one HTML file that needs nothing else, beside the evidence."""
    from pipelines.data.display.audit_page import audit_page

    report = Report(
        stage=STAGE.name,
        recipe_name=recipe.name,
        gates=outcome.gates,
        findings=outcome.findings,
        figures=outcome.figures,
        fingerprints=read,
        produced=outcome.produced,
        recipe=recipe.model_dump(mode="json"),
        seconds=round(seconds, 3),
        created_at=datetime.now(UTC),
    )
    page = Path(outcome.produced["page"])
    partial = page.with_suffix(".partial")
    partial.write_text(audit_page(report, survey.evidence, survey.corpus, survey.decided), encoding="utf-8")
    partial.rename(page)


STAGE = Stage("audit", SUMMARIES["audit"], GATES["audit"], reads, work)


def main() -> int:
    """`python -m pipelines.audit RECIPE`; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import audit

    sys.exit(audit.main())
