"""`sluice audit`: are these examples fit to learn from?"""

import sys
from collections import Counter
from itertools import chain
from typing import Any

from pipelines import stage
from pipelines.data.findings import (
    answer_findings,
    duplicate_findings,
    masked,
    provenance_findings,
    schema_findings,
    size_findings,
)
from pipelines.data.quarantine import keep_aside
from pipelines.data.read import Reading, dataset_fingerprint, read_examples
from pipelines.data.survey import Survey, answer_of, prompt_of
from pipelines.fingerprint import fingerprint
from pipelines.gates import Gate, decide
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stage import Outcome, Stage
from pipelines.workspace import Workspace

MAX_BAD_SHARE = 0.05
"""Of more unreadable rows than this share the rest is not to be trusted either."""


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The data, the rules, and the shares and seed by which a random split is simulated."""
    return {
        "dataset": dataset_fingerprint(recipe),
        "audit": fingerprint(recipe.audit.model_dump(mode="json")),
        "shares": fingerprint(recipe.split.model_dump(mode="json"), recipe.seed),
    }


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Read every row once, keep aside what is none, and look at the rest."""
    reading = read_examples(recipe, workspace.settings)
    progress.say(f"audit: {reading.rows:,} rows read by {reading.driver}, {len(reading.bad):,} kept aside.")
    keep_aside(workspace, reading.fingerprint, reading.bad)
    survey = Survey(reading.examples, recipe.audit.near_duplicate_threshold, recipe.dataset.instruction)
    random_split = survey.random_split(recipe.split.train, recipe.split.test, recipe.seed)
    figures = _figures(reading, survey, random_split)
    duplicates = _duplicates_gate(recipe, figures)
    findings = chain(
        schema_findings(reading),
        size_findings(survey, recipe.audit.min_examples),
        provenance_findings(survey),
        duplicate_findings(survey, random_split, duplicates.verdict == "open"),
        answer_findings(survey),
    )
    gates = (_schema_gate(figures), _size_gate(recipe, figures), _provenance_gate(reading), duplicates)
    worst_first = sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))
    return Outcome(gates, tuple(worst_first), figures, read={"dataset": reading.fingerprint})


def _schema_gate(figures: dict[str, Any]) -> Gate:
    """Almost every row is readable."""
    bad, rows = figures["quarantined_rows"], figures["rows"]
    return decide(
        "data.schema",
        bad <= MAX_BAD_SHARE * rows,
        f"{rows - bad:,} of {rows:,} rows are readable; {bad:,} kept aside (at most {MAX_BAD_SHARE:.0%}).",
    )


def _size_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Enough different examples by people."""
    least, count = recipe.audit.min_examples, figures["human_annotated"]
    return decide(
        "data.size",
        count >= least,
        f"{figures['rows']:,} rows, {figures['unique_rows']:,} unique, of which {count:,} are by named people; "
        f"at least {least:,} are needed.",
    )


def _provenance_gate(reading: Reading) -> Gate:
    """Every example tells where it comes from and who stands for its answer.

    The collector is asked for, but its absence closes nothing: the source and the person who answers for
    the text are what a later question about the data needs.
    """
    silent = sum(1 for example in reading.examples if not (example.source and example.annotator))
    declared = sum(1 for example in reading.examples if '"declared": []' not in example.meta)
    return decide(
        "data.provenance",
        silent == 0,
        f"{len(reading.examples) - silent:,} of {len(reading.examples):,} rows name their source and annotator"
        + (f", {declared:,} of them partly as the recipe declares." if declared else "."),
    )


def _duplicates_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Few rows repeat others, exactly or nearly."""
    most, share = recipe.audit.max_duplicate_share, figures["duplicate_share"]
    answer = figures["most_common_answer"]
    return decide(
        "data.duplicates",
        share <= most,
        f"{share:.1%} of rows repeat another (at most {most:.0%}): {figures['duplicate_rows']:,} exactly, "
        f"{figures['near_duplicate_rows']:,} nearly; the most common answer stands {answer['count']:,} times; "
        f"a random split would have leaked {figures['random_split_leak_share']:.1%} of its test rows.",
    )


def _figures(reading: Reading, survey: Survey, random_split: dict[str, float]) -> dict[str, Any]:
    examples = reading.examples
    answer, times = survey.most_common_answer
    readable = len(examples)
    return {
        "rows": readable + len(reading.bad),
        "readable_rows": readable,
        "quarantined_rows": len(reading.bad),
        "quarantined": dict(Counter(row.kind for row in reading.bad)),
        "left_out_rows": reading.left_out,
        # A row that is kept aside is a different row too: what was found is what is counted.
        "unique_rows": len(survey.unique) + len({row.content for row in reading.bad}),
        "unique_examples": len(survey.unique),
        "human_annotated": survey.by_people,
        "duplicate_rows": readable - len(survey.unique),
        "near_duplicate_rows": len(survey.unique) - len(survey.clusters),
        "duplicate_share": round((readable - len(survey.clusters)) / readable, 6),
        "clusters": len(survey.clusters),
        "largest_cluster_rows": max(survey.clusters.values()),
        "groups": len({example.group for example in examples if example.group}),
        "ungrouped_rows": sum(1 for example in examples if not example.group),
        "most_common_answer": {"text": masked(answer, 400), "count": times},
        "random_split_leak_share": round(random_split["leak_share"], 6),
        "random_split_group_share": round(random_split["group_share"], 6),
        "random_split_test_rows": random_split["test_rows"],
        "prompt_words": survey.lengths(prompt_of),
        "answer_words": survey.lengths(answer_of),
        **{f"{name}s": _commonest(getattr(example, name) for example in examples) for name in _WHO},
        "read_by": reading.driver,
    }


_WHO = ("source", "collector", "annotator")


def _commonest(values: Any) -> list[dict[str, Any]]:
    counts = Counter(str(value or "not named") for value in values)
    return [{"name": masked(name), "rows": count} for name, count in counts.most_common(10)]


STAGE = Stage(
    name="audit",
    summary="Read the examples and decide whether they are fit to learn from.",
    gates=("data.schema", "data.size", "data.provenance", "data.duplicates"),
    reads=reads,
    work=work,
)


def main() -> int:
    """`python -m pipelines.audit RECIPE`; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import audit

    sys.exit(audit.main())
