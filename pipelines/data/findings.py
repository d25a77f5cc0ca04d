"""What the audit has to say of a dataset: one finding for each problem, with samples and a remedy. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from pipelines.data.example import BadRow, Example, shown
from pipelines.data.read import Reading
from pipelines.data.survey import Survey, answer_of, prompt_of
from pipelines.gates import Finding

SAMPLES = 5
COMMON_ANSWER_SHARE = 0.01
"""An answer in more rows than this share (and in at least 10) is worth a warning: a model learns it by heart."""

_KINDS = {
    "syntax": ("no parser accepts", "Correct them in the file; a last line without an end was cut short in copying."),
    "encoding": ("with characters that are no text", "Remove NUL characters and lone surrogates where they are made."),
    "type": ("of another type than the others", "Write text (or a list of turns) into that column in every row."),
    "missing": ("without a column that the others have", "Add the column, or map it in dataset.columns."),
    "empty": ("with an empty prompt or completion", "Fill them in, or delete the rows."),
    "roles": ("without user and assistant by turns", "Order the turns user, assistant, user, ..."),
}
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


def schema_findings(reading: Reading) -> Iterator[Finding]:
    """The rows kept aside, a finding a kind, and those beyond `max_examples`."""
    kinds: dict[str, list[BadRow]] = defaultdict(list)
    for row in reading.bad:
        kinds[row.kind].append(row)
    for kind, rows in sorted(kinds.items()):
        what, remedy = _KINDS[kind]
        first, good = rows[0], reading.examples[0]
        aside = "is kept aside" if len(rows) == 1 else "are kept aside"
        yield Finding(
            code=f"data.schema.{kind}",
            severity="warning",
            message=f"{_rows(len(rows))} {what} ({first.file}, row {first.position}: {first.reason}) and {aside}; "
            f"{_rows(len(reading.examples))} can be read, such as {good.file}, row {good.position}.",
            count=len(rows),
            samples=tuple(
                {"file": row.file, "row": row.position, "reason": row.reason, "content": masked(row.content)}
                for row in rows[:SAMPLES]
            ),
            remedy=remedy,
        )
    if reading.left_out:
        yield Finding(
            code="data.schema.left_out",
            severity="info",
            message=f"{reading.left_out:,} rows are left out by dataset.max_examples; "
            f"{len(reading.examples):,} were chosen by seeded hash, groups whole.",
            count=reading.left_out,
            remedy="Raise dataset.max_examples for more.",
        )


def size_findings(survey: Survey, least: int) -> Iterator[Finding]:
    """Too few, and the rows that count for nobody."""
    if survey.by_people < least:
        yield Finding(
            code="data.size.too_few",
            severity="error",
            message=f"{survey.by_people:,} unique examples are by named people; {least:,} are needed.",
            count=least - survey.by_people,
            remedy=f"Collect at least {least - survey.by_people:,} more, each different.",
        )
    machines = [example for example in survey.unique.values() if example.annotator and not example.by_a_person]
    if machines:
        yield Finding(
            code="data.size.by_machines",
            severity="warning",
            message=f"{len(machines):,} unique examples were written by a model and count for nothing here.",
            count=len(machines),
            samples=tuple(
                _sample(example, survey) | {"annotator": example.annotator} for example in machines[:SAMPLES]
            ),
            remedy="Have a person approve them, and name that person as annotator.",
        )


def provenance_findings(survey: Survey) -> Iterator[Finding]:
    """A finding for each part of the origin that rows do not tell."""
    for name in ("source", "annotator", "collector"):
        silent = [example for example in survey.examples if not getattr(example, name)]
        if silent:
            yield Finding(
                code=f"data.provenance.{name}",
                severity="warning" if name == "collector" else "error",
                message=f"{_rows(len(silent))} of {len(survey.examples):,} name no {name}.",
                count=len(silent),
                samples=tuple(_sample(example, survey) for example in silent[:SAMPLES]),
                remedy=f"Add a column {name} (or map one in dataset.columns), or declare it in "
                f"dataset.provenance.{name}.",
            )


def duplicate_findings(survey: Survey, random_split: dict[str, float], holds: bool) -> Iterator[Finding]:
    """Exact repeats, near-duplicates, and what a random split would make of them."""
    severity: Any = "warning" if holds else "error"
    repeated = [(count, id) for id, count in survey.repeats.most_common(SAMPLES) if count > 1]
    if repeated:
        rows = len(survey.examples) - len(survey.unique)
        most = repeated[0][0]
        yield Finding(
            code="data.duplicates.exact",
            severity=severity,
            message=f"{_rows(rows)} repeat another row exactly; one conversation stands {most:,} times.",
            count=rows,
            samples=tuple({"times": count} | _sample(survey.unique[id], survey) for count, id in repeated),
            remedy="Keep each once (the split does so), and collect different examples.",
        )
    if survey.pairs:
        ids = {survey.text_of_id[id]: id for id in reversed(survey.unique)}
        nearest = sorted(survey.pairs, key=lambda pair: -pair[2])[:SAMPLES]
        near_rows = len(survey.unique) - len(survey.clusters)
        yield Finding(
            code="data.duplicates.near",
            severity="warning" if holds else "error",
            message=f"{near_rows:,} of {len(survey.unique):,} unique examples nearly repeat another "
            f"(similarity {survey.threshold:g} or more); the split keeps each cluster on one side.",
            count=near_rows,
            samples=tuple(
                {
                    "similarity": round(value, 3),
                    "left": masked(answer_of(survey.unique[ids[left]]), 80),
                    "right": masked(answer_of(survey.unique[ids[right]]), 80),
                }
                for left, right, value in nearest
            ),
            remedy="Look at the pairs; delete those that are copies with a typing error.",
        )
    leaked = random_split["leak_share"]
    grouped = random_split["group_share"]
    if leaked > 0 or grouped > 0:
        yield Finding(
            code="data.duplicates.random_split",
            severity="warning",
            message=f"A random split would have leaked {leaked:.1%} of its {random_split['test_rows']:,.0f} test rows: "
            "they, or near-duplicates, would stand on the training side too"
            + (f", and {grouped:.1%} would have another row of their group there." if grouped else "."),
            count=round(leaked * random_split["test_rows"]),
            remedy="Split with `sluice split`, which keeps repeats, near-duplicates and groups on one side.",
        )


def answer_findings(survey: Survey) -> Iterator[Finding]:
    """One answer to many different questions."""
    text, count = survey.most_common_answer
    if count < 10 or count < COMMON_ANSWER_SHARE * len(survey.examples):
        return
    asked = Counter(prompt_of(example, survey.instruction) for example in survey.examples if text in answer_of(example))
    yield Finding(
        code="data.duplicates.answer",
        severity="warning",
        message=f"One answer stands in {count:,} of {len(survey.examples):,} rows "
        f"({count / len(survey.examples):.1%}): {masked(text, 80)!r}.",
        count=count,
        samples=tuple({"times": times, "prompt": masked(prompt, 80)} for prompt, times in asked.most_common(SAMPLES)),
        remedy="Keep it where it is right; a model that sees it this often gives it to every question.",
    )


def masked(text: str, limit: int = 160) -> str:
    """A sample's text: short, storable, mail addresses hidden."""
    return shown(_MAIL.sub("<mail address>", text), limit)


def _sample(example: Example, survey: Survey) -> dict[str, Any]:
    return {
        "id": example.id[:12],
        "file": example.file,
        "row": example.position,
        "prompt": masked(prompt_of(example, survey.instruction), 80),
        "answer": masked(answer_of(example), 80),
    }


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
