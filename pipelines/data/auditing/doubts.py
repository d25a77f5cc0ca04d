"""The audit's findings about suspects and about personal data."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.data.auditing.samples import SAMPLES, masked, sample_rows
from pipelines.data.auditing.survey import Survey
from pipelines.gates import Finding

if TYPE_CHECKING:
    from pipelines.data.anomaly.suspicion import Suspicion

_SUSPECTS = {
    "length": ("are much shorter or longer than the others", "Look for answers that were cut, or pasted twice."),
    "repetition": ("repeat their own lines or words", "Rewrite the answers; a model learns to go in circles."),
    "gibberish": ("hold characters in an order that no other text has", "Delete keyboard noise and broken encodings."),
    "language": ("answer in another language than most", "Delete them, or set audit.anomalies.language to null."),
    "encoding": ("show signs of a damaged encoding", "Read the source again in the encoding that it was written in."),
    "refusal": ("decline to answer", "Keep only the refusals that you want to teach."),
    "boilerplate": (
        "open or close with words that very many answers share",
        "Cut off what adds nothing.",
    ),
    "mismatch": ("have the answers that fit their prompts least", "Look for answers that belong to another row."),
    "loss": (
        "surprise a model of the other folds more than their like",
        "Look for wrong or foreign answers.",
    ),
    "label": ("have a label that a model of the other folds would not give", "Correct the label, or keep it."),
}
_ACTIONS = {
    "mask": "the split writes each as its kind, such as <email>",
    "drop": "the split leaves these rows out",
    "allow": "they are let pass, as the recipe says",
    None: "nothing is decided yet",
}


def suspect_findings(survey: Survey, suspicion: "Suspicion") -> Iterator[Finding]:
    """A finding a kind, the worst rows as samples."""
    import pyarrow.compute as pc

    not_run: dict[str, str] = survey.evidence.note.anomalies.get("not_run") or {}
    if not_run:
        yield Finding(
            code="data.anomalies.not_run",
            severity="info",
            message=f"Not looked for: {', '.join(not_run)}. {next(iter(not_run.values()))}",
            count=len(not_run),
            samples=tuple({"kind": kind, "reason": reason} for kind, reason in not_run.items()),
            remedy="Look through the examples yourself, or audit again when there are more.",
        )
    for kind, count in suspicion.by_kind.items():
        what, remedy = _SUSPECTS.get(kind, ("are suspect", "Look at them."))
        of_kind = suspicion.table.filter(pc.equal(suspicion.table["kind"], kind))
        worst = of_kind.sort_by([("score", "descending"), ("row", "ascending")]).slice(0, SAMPLES).to_pylist()
        rows = sample_rows(survey, [each["row"] for each in worst])
        yield Finding(
            code="data.label_noise.label" if kind == "label" else f"data.anomalies.{kind}",
            severity="info" if kind == "mismatch" else "warning",
            message=f"{count:,} of {survey.rows:,} rows {what}.",
            count=count,
            samples=tuple(
                row | {"score": round(each["score"], 3), "reason": masked(each["reason"], 300, survey.kinds)}
                for row, each in zip(rows, worst, strict=True)
            ),
            remedy=f"{remedy} Each can be kept or dropped in the review queue.",
        )


def private_findings(survey: Survey, action: str | None) -> Iterator[Finding]:
    """A finding a kind of personal data or secret, its samples masked."""
    import pyarrow.compute as pc

    private = survey.private
    for kind in sorted(set(private["kind"].to_pylist())):
        found = private.filter(pc.equal(private["kind"], kind))
        rows = found["row"].unique()
        places = survey.corpus.take(found["row"].to_numpy()[:SAMPLES], ["file", "position"]).to_pylist()
        yield Finding(
            code=f"data.private.{kind}",
            severity="error" if action is None else "info",
            message=f"{len(rows):,} of {survey.rows:,} rows hold {len(found):,} pieces of the kind {kind}; "
            f"{_ACTIONS[action]}.",
            count=len(rows),
            samples=tuple(
                {"file": place["file"], "row": place["position"], "sample": masked(sample, 200, survey.kinds)}
                for place, sample in zip(places, found["masked"].to_pylist()[:SAMPLES], strict=True)
            ),
            remedy="Decide with audit.private.action: mask, drop or allow.",
        )
