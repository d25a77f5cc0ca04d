"""What the audit has to say of a dataset: one finding for each problem, with samples and a remedy."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.auditing.samples import SAMPLES, masked, sample_rows
from pipelines.data.auditing.survey import Survey, commonest
from pipelines.data.example import shown
from pipelines.gates import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMMON_ANSWER_SHARE = 0.01
"""An answer in more rows than this share (and in at least 10) is worth a warning: a model learns it by heart."""
ASKED_ROWS = 1000
"""Rows with the most common answer whose prompts are counted."""
FEW_OF_A_LABEL = 10
"""A label in fewer rows than this can hardly be learnt, and hardly be measured."""

_KINDS = {
    "syntax": ("no parser accepts", "Correct them in the file; a last line without an end was cut short in copying."),
    "encoding": ("with characters that are no text", "Remove NUL characters and lone surrogates where they are made."),
    "type": ("of another type than the others", "Write text (or a list of turns) into that column in every row."),
    "missing": ("without a column that the others have", "Add the column, or map it in dataset.columns."),
    "empty": ("with an empty prompt or completion", "Fill them in, or delete the rows."),
    "roles": ("without user and assistant by turns", "Order the turns user, assistant, user, ..."),
    "equal": ("whose chosen and rejected answers are the same", "A pair teaches by its difference: delete them."),
}


def schema_findings(survey: Survey, figures: dict[str, Any]) -> Iterator[Finding]:
    """The files that cannot be read, the rows kept aside, a finding a kind, and those beyond `max_examples`."""
    import pyarrow.compute as pc

    bad, good = survey.corpus.bad, sample_rows(survey, [0])[0]
    for kind in sorted(set(bad["kind"].to_pylist())):
        found = bad.filter(pc.equal(bad["kind"], kind))
        rows, count = found.slice(0, SAMPLES).to_pylist(), len(found)
        if kind == "file":
            yield _broken(rows, count)
            continue
        what, remedy = _KINDS[kind]
        aside = "is kept aside" if count == 1 else "are kept aside"
        yield Finding(
            code=f"data.schema.{kind}",
            severity="warning",
            message=f"{_rows(count)} {what} ({rows[0]['file']}, row {rows[0]['position']}: {rows[0]['reason']}) and "
            f"{aside}; {_rows(survey.rows)} can be read, such as {good['file']}, row {good['row']}.",
            count=count,
            samples=tuple(
                {
                    "file": row["file"],
                    "row": row["position"],
                    "reason": masked(row["reason"], 400, survey.kinds),
                    "content": masked(row["content"], kinds=survey.kinds),
                }
                for row in rows
            ),
            remedy=remedy,
        )
    if figures["left_out_rows"]:
        yield Finding(
            code="data.schema.left_out",
            severity="info",
            message=f"{figures['left_out_rows']:,} rows are left out by dataset.max_examples; "
            f"{survey.rows:,} were chosen by seeded hash, groups whole.",
            count=figures["left_out_rows"],
            remedy="Raise dataset.max_examples for more.",
        )


def _broken(rows: list[dict[str, Any]], count: int) -> Finding:
    what = "1 file cannot be read to its end" if count == 1 else f"{count:,} files cannot be read to their ends"
    return Finding(
        code="data.schema.file",
        severity="error",
        message=f"{what}: {shown(rows[0]['reason'], 300)} What was read before stands; the other files are whole.",
        count=count,
        samples=tuple(
            {"file": row["file"], "reason": shown(row["reason"], 300), "remedy": row["content"]} for row in rows
        ),
        remedy=f"{rows[0]['content']} Or leave the file out of dataset.source.",
    )


def size_findings(survey: Survey, figures: dict[str, Any], least: int) -> Iterator[Finding]:
    """Too few, the rows that count for nobody, labels that hardly occur, tokens that nobody counted."""
    if survey.by_people < least:
        yield Finding(
            code="data.size.too_few",
            severity="error",
            message=f"{survey.by_people:,} unique examples are by named people; {least:,} are needed.",
            count=least - survey.by_people,
            remedy=f"Collect at least {least - survey.by_people:,} more, each different.",
        )
    named = ~survey.corpus.column("annotator").is_null().to_numpy()
    machines = survey.first[(named & ~survey.by_person)[survey.first]]
    if len(machines):
        yield Finding(
            code="data.size.by_machines",
            severity="warning",
            message=f"{len(machines):,} unique examples were written by a model and count for nothing here.",
            count=len(machines),
            samples=sample_rows(survey, machines[:SAMPLES], ("annotator",)),
            remedy="Have a person approve them, and name that person as annotator.",
        )
    labels = survey.corpus.column("label").drop_null()
    rare = [label for label in commonest(labels, len(labels)) if label[1] < FEW_OF_A_LABEL]
    if rare:
        yield Finding(
            code="data.size.labels",
            severity="warning",
            message=f"{len(rare):,} labels stand in fewer than {FEW_OF_A_LABEL} rows each, such as "
            f"{masked(rare[-1][0])!r}.",
            count=len(rare),
            samples=tuple({"name": masked(name), "rows": count} for name, count in rare[-SAMPLES:]),
            remedy="Collect more of them, or join them with a neighbouring label.",
        )
    away = ["the base", *(each["tokenizer"] for each in figures["tokenizers"] if each["total"] is None)]
    away = away[figures["tokens"] is not None :]
    if away:
        yield Finding(
            code="data.size.tokens",
            severity="info",
            message=f"Tokens are not counted by the tokenizer of {masked(', '.join(away), 400)}: the model is not on "
            "this machine, or has no chat template. An audit fetches nothing to count tokens.",
            count=survey.rows,
            remedy="`python -m pipelines.models.load OWNER/NAME` fetches it; then `sluice audit RECIPE --fresh`.",
        )


def provenance_findings(survey: Survey) -> Iterator[Finding]:
    """A finding for each part of the origin that rows do not tell."""
    for name in ("source", "annotator", "collector"):
        silent = survey.missing(name)
        if len(silent):
            yield Finding(
                code=f"data.provenance.{name}",
                severity="warning" if name == "collector" else "error",
                message=f"{_rows(len(silent))} of {survey.rows:,} name no {name}.",
                count=len(silent),
                samples=sample_rows(survey, silent[:SAMPLES]),
                remedy=f"Add a column {name} (or map one in dataset.columns), or declare it in "
                f"dataset.provenance.{name}.",
            )


def duplicate_findings(
    survey: Survey, figures: dict[str, Any], leaking: Sequence[tuple[int, int]], threshold: float, *, holds: bool
) -> Iterator[Finding]:
    """Exact repeats, near-duplicates, and what a random split would make of them, with some pairs that it leaks."""
    severity: Any = "warning" if holds else "error"
    if figures["duplicate_rows"]:
        times = survey.repeats[survey.id[survey.first]]
        most = (-times).argsort(kind="stable")[:SAMPLES]
        most = most[times[most] > 1]
        samples = sample_rows(survey, survey.first[most])
        yield Finding(
            code="data.duplicates.exact",
            severity=severity,
            message=f"{_rows(figures['duplicate_rows'])} repeat another row exactly; one conversation stands "
            f"{int(times.max()):,} times.",
            count=figures["duplicate_rows"],
            samples=tuple({"times": int(n)} | row for n, row in zip(times[most], samples, strict=True)),
            remedy="Keep each once (the split does so), and collect different examples.",
        )
    if figures["near_duplicate_rows"]:
        yield Finding(
            code="data.duplicates.near",
            severity=severity,
            message=f"{figures['near_duplicate_rows']:,} of {figures['unique_examples']:,} unique examples nearly "
            f"repeat another (similarity {threshold:g} or more); the split keeps each cluster on one side.",
            count=figures["near_duplicate_rows"],
            samples=_nearest_pairs(survey),
            remedy="Look at the pairs; delete those that are copies with a typing error.",
        )
    leaked, grouped = figures["random_split_leak_share"], figures["random_split_group_share"]
    if leaked > 0 or grouped > 0:
        yield Finding(
            code="data.duplicates.random_split",
            severity="warning",
            message=f"A random split would have leaked {leaked:.1%} of its {figures['random_split_test_rows']:,.0f} "
            "test rows: they, or near-duplicates, would stand on the training side too"
            + (f", and {grouped:.1%} would have another row of their group there." if grouped else "."),
            count=round(leaked * figures["random_split_test_rows"]),
            samples=_leaking_pairs(survey, leaking),
            remedy="Split with `sluice split`, which keeps repeats, near-duplicates and groups on one side.",
        )


def _leaking_pairs(survey: Survey, pairs: Sequence[tuple[int, int]]) -> tuple[dict[str, Any], ...]:
    sides = (sample_rows(survey, [pair[side] for pair in pairs]) for side in (0, 1))
    return tuple(
        {
            "shared": "cluster" if survey.evidence.cluster[pair[0]] == survey.evidence.cluster[pair[1]] else "group",
            **{f"test_{name}": tested[name] for name in ("file", "row", "prompt", "answer")},
            **{f"train_{name}": learnt[name] for name in ("file", "row", "prompt", "answer")},
        }
        for pair, tested, learnt in zip(pairs, *sides, strict=True)
    )


def _nearest_pairs(survey: Survey) -> tuple[dict[str, Any], ...]:
    edges = survey.evidence.edges.sort_by([("similarity", "descending"), ("left", "ascending")])
    pairs = edges.slice(0, SAMPLES).to_pylist()
    left = sample_rows(survey, [pair["left"] for pair in pairs])
    right = sample_rows(survey, [pair["right"] for pair in pairs])
    return tuple(
        {"similarity": round(pair["similarity"], 3), "kind": pair["kind"], "left": a["answer"], "right": b["answer"]}
        for pair, a, b in zip(pairs, left, right, strict=True)
    )


def answer_findings(survey: Survey) -> Iterator[Finding]:
    """One answer to many different questions."""
    rows, _ = survey.most_common_answer
    if len(rows) < 10 or len(rows) < COMMON_ANSWER_SHARE * survey.rows:
        return
    asked = Counter(row["prompt"] for row in sample_rows(survey, rows[:ASKED_ROWS]))
    yield Finding(
        code="data.duplicates.answer",
        severity="warning",
        message=f"One answer stands in {len(rows):,} of {survey.rows:,} rows "
        f"({len(rows) / survey.rows:.1%}): {masked(survey.common_answer, 80, survey.kinds)!r}.",
        count=len(rows),
        samples=tuple({"times": times, "prompt": prompt} for prompt, times in asked.most_common(SAMPLES)),
        remedy="Keep it where it is right; a model that sees it this often gives it to every question.",
    )


def special_findings(survey: Survey) -> Iterator[Finding]:
    """Marks of chat templates inside texts."""
    import numpy as np

    rows: NDArray[np.int64] = np.flatnonzero(survey.corpus.array("special"))
    if len(rows):
        yield Finding(
            code="data.anomalies.special",
            severity="warning",
            message=f"Special tokens or chat marks (such as <|im_start|>) stand in the text of {_rows(len(rows))}; "
            "training takes them as plain text.",
            count=len(rows),
            samples=sample_rows(survey, rows[:SAMPLES]),
            remedy="Remove them where they came in by copying a rendered conversation.",
        )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity)))
