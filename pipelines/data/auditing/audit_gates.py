"""The gates of the audit: the rules that its figures must satisfy."""

from typing import Any

from pipelines.data.anomaly.suspicion import UNCOUNTED
from pipelines.data.auditing.survey import Survey
from pipelines.gates import Gate, Verdict, decide
from pipelines.recipe import Recipe

MAX_BAD_SHARE = 0.05
"""Of more unreadable rows than this share the rest is not to be trusted either."""


def audit_gates(recipe: Recipe, survey: Survey, figures: dict[str, Any]) -> tuple[Gate, ...]:
    """What each gate of the audit says, in their order."""
    return (
        _schema_gate(figures),
        _size_gate(recipe, figures),
        _provenance_gate(survey),
        _duplicates_gate(recipe, figures),
        _anomalies_gate(recipe, figures),
        _label_noise_gate(recipe, figures),
        _private_gate(recipe, figures),
    )


def _schema_gate(figures: dict[str, Any]) -> Gate:
    """Every file and almost every row is readable."""
    bad, rows, broken = figures["quarantined_rows"], figures["rows"], figures["unreadable_files"]
    names = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    return decide(
        "data.schema",
        bad <= MAX_BAD_SHARE * rows and not broken,
        f"{rows - bad:,} of {rows:,} rows are readable; {bad:,} kept aside (at most {MAX_BAD_SHARE:.0%})"
        + (f"; not readable to the end: {names}." if broken else "."),
    )


def _size_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Enough different examples by people."""
    least, count = recipe.audit.min_examples, figures["human_annotated"]
    return decide(
        "data.size",
        count >= least,
        f"{figures['rows']:,} rows, {figures['unique_rows']:,} unique, of which {count:,} are by named people"
        + (f" and were not dropped ({figures['dropped_rows']:,} rows were)" if figures["dropped_rows"] else "")
        + f"; at least {least:,} are needed.",
    )


def _provenance_gate(survey: Survey) -> Gate:
    """Every example tells where it comes from and who stands for its answer.

    The collector is asked for, but its absence closes nothing: the source and the person who answers for
    the text are what a later question about the data needs.
    """
    rows = survey.rows - len(survey.dropped)
    named = rows - len({*survey.missing("source").tolist(), *survey.missing("annotator").tolist()})
    declared = survey.declared
    return decide(
        "data.provenance",
        named == rows,
        f"{named:,} of {rows:,} rows name their source and annotator"
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


def _anomalies_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Few rows are suspect, but for those that a person looked at and keeps or drops."""
    most, rows = recipe.audit.anomalies.max_share, figures["suspect_rows"]
    staying = figures["readable_rows"] - figures["dropped_rows"]
    kept, dropped = figures["reviewed_keep_rows"], figures["reviewed_drop_rows"]
    told = {kind: f"{count:,} by {kind}" for kind, count in figures["suspects"].items()}
    kinds = ", ".join(text for kind, text in told.items() if kind not in UNCOUNTED)
    shown = ", ".join(text for kind, text in told.items() if kind in UNCOUNTED)
    return decide(
        "data.anomalies",
        rows <= most * staying,
        f"{rows:,} of {staying:,} rows are suspect "
        f"({figures['suspect_share']:.1%}, at most {most:.0%})"
        + (f": {kinds}" if kinds else "")
        + (f"; shown without counting here: {shown}" if shown else "")
        + (f"; {kept:,} were looked at and are kept" if kept else "")
        + (f"; {dropped:,} were looked at and are dropped." if dropped else "."),
    )


def _label_noise_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Few labels are wrong, as far as models of the other folds can tell."""
    most, found = recipe.audit.max_label_noise, figures["label_noise"]
    reason = found.get("reason", "") if recipe.dataset.label else "The recipe names no dataset.label."
    if reason or found.get("share") is None:
        return Gate(
            gate="data.label_noise", verdict=Verdict.NOT_APPLICABLE, evidence=reason or "No label was looked at."
        )
    return decide(
        "data.label_noise",
        found["share"] <= most,
        f"an estimated {found['share']:.1%} of the labels are wrong (at most {most:.0%}); "
        f"{figures['suspects'].get('label', 0):,} rows wait in the review queue"
        + (f", {found['decided_rows']:,} were decided and count no more." if found["decided_rows"] else "."),
    )


def _private_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Nothing personal or secret goes on without a decision."""
    action, rows = recipe.audit.private.action, figures["private_rows"]
    kinds = ", ".join(f"{kind} in {count:,}" for kind, count in figures["private"].items())
    will = {
        "mask": "each is replaced by its kind when the split is written",
        "drop": "these rows are left out of the split",
        "allow": "the recipe lets them pass",
        None: "audit.private.action decides nothing yet: mask, drop or allow",
    }[action]
    looked = ", ".join(recipe.audit.private.kinds)
    return decide(
        "data.private",
        not rows or action is not None,
        f"{rows:,} rows hold personal data or secrets ({kinds}); {will}."
        if rows
        else "no personal data or secrets found"
        + (" in the rows that were not dropped" if figures["dropped_rows"] else "")
        + f" (looked for: {looked}).",
    )
