"""`sluice split`: sides that share nothing, as a versioned table."""

import sys
from typing import Any

from cluster.errors import StageFailed, UserError
from pipelines import audit, stage
from pipelines.data.leaks.benchmark_sets import benchmark_items, benchmarks_fingerprint
from pipelines.data.prepare import evidence_of, prepare
from pipelines.data.sides.division import Division, Outside, divide
from pipelines.data.sides.past import Past, ever_tested, read_past
from pipelines.data.sides.split_findings import SHARED, leak_findings, notes, split_figures
from pipelines.data.sides.splitting import HELD_OUT, SIDES
from pipelines.data.versioned.table import Written, read_version, write_table
from pipelines.fingerprint import fingerprint
from pipelines.gates import Gate, decide
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.recipe_data import Split
from pipelines.review import dropped
from pipelines.stage import Outcome, Stage, check_unmoved, require
from pipelines.stages import GATES, SUMMARIES
from pipelines.workspace import Workspace

_RULES = ("by_time", "column", "heal", "dedup", "containment", "shared_prompts")
"""Keys of the split that sides depend on, beside the shares."""


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The audit's report, the rules, what people decided to leave out, and the benchmarks that are kept out."""
    # The benchmarks by their content alone: their paths are another folder's in every copy of the same project.
    named = {"benchmarks": benchmarks_fingerprint(recipe.split.benchmarks)} if recipe.split.benchmarks else {}
    return {
        "audit": require(audit.STAGE, recipe, workspace).key,
        "policy": rules_fingerprint(recipe),
        "reviews": fingerprint(dropped(workspace, recipe.name)),
    } | {name: value for name, value in named.items() if value}


def rules_fingerprint(recipe: Recipe) -> str:
    """Of all that the recipe says of a split; of benchmarks the content counts, not where a machine has them."""
    rules = recipe.split.model_dump(mode="json", exclude={"benchmarks"})
    return fingerprint(policy_of(recipe), rules, recipe.audit.private.action)


def policy_of(recipe: Recipe) -> str:
    """Fingerprint of what the sides are drawn by: under another one the old places do not count."""
    split, plain = recipe.split, Split()
    # Only what differs from how it always was: a key that is new breaks off no table that was there before it.
    rules = {name: getattr(split, name) for name in _RULES if getattr(split, name) != getattr(plain, name)}
    if recipe.dataset.label:
        rules["label"] = recipe.dataset.label
    if recipe.audit.private.action == "mask":
        rules["masked"] = sorted(recipe.audit.private.kinds)
    return fingerprint(
        recipe.seed,
        split.shares,
        recipe.audit.near_duplicate_threshold,
        recipe.dataset.group_by or recipe.dataset.columns.get("group"),
        *([rules] if rules else []),
    )


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Place every example, look for leaks in what will be written, and write it.

    `fresh` forgets the places that were given before.
    """
    audited = require(audit.STAGE, recipe, workspace)
    corpus = prepare(recipe, workspace, progress)
    evidence = evidence_of(recipe, workspace, progress, corpus=corpus)
    # Before anything is written: a version of the table counts for the places of all that come after it.
    check_unmoved("split", recipe, {"dataset": audited.fingerprints["dataset"]}, {"dataset": corpus.note.dataset})
    uri, policy = workspace.uri("splits", recipe.name), policy_of(recipe)
    past = Past() if fresh else read_past(uri, policy)
    outside = Outside(
        dropped=dropped(workspace, recipe.name),
        tested=ever_tested(uri) if recipe.split.freeze_test else None,
        benchmarks=benchmark_items(recipe.split.benchmarks),
        key=workspace.secret() if recipe.audit.private.action == "mask" else b"",
    )
    division = divide(corpus, evidence, recipe, past, outside, progress)
    _refuse_empty(division.sizes, recipe)
    written = write_table(uri, division.batches(corpus), policy, starts_over=fresh, cutoffs=division.cutoffs)
    check_sides(written, division)
    leaks = division.leaks.table(division.checked)
    evidence.write_leaks(leaks, written.fingerprint)
    progress.say(f"split: {_sizes(division.sizes)}; version {written.version} of {uri}.")
    figures = split_figures(division, past, recipe, corpus)
    return Outcome(
        gates=(_leakage_gate(division), _size_gate(recipe, figures)),
        findings=(*leak_findings(division, leaks, corpus, recipe), *notes(division, past, recipe, corpus)),
        figures=figures,
        produced={
            "table": uri,
            "version": str(written.version),
            "split": written.fingerprint,
            "evidence": str(evidence.folder),
        },
        read={"audit": audited.key},
    )


def check_sides(written: Written, division: Division) -> None:
    """Raise StageFailed unless each row of the table stands on the side on which the verifier looked at it.

    That the rows' content is what the verifier read, the table's fingerprint says.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_version(written.uri, written.version, ("id", "split"))
    placed = division.checked
    looked_at = pa.array([*SIDES, HELD_OUT]).take(pa.array(placed.side[: placed.rows] % (len(SIDES) + 1)))
    found = pc.index_in(table["id"], placed.ids.combine_chunks().slice(0, placed.rows))
    same = not found.null_count and len(np.unique(found.to_numpy())) == len(table) == len(division.rows)
    if not same or not table["split"].combine_chunks().equals(looked_at.take(found.combine_chunks())):
        raise StageFailed(
            f"{written.uri}: version {written.version} does not hold the sides that were checked.",
            "Look after the storage, then run `sluice split RECIPE --fresh`.",
        )


def _leakage_gate(division: Division) -> Gate:
    """Nothing that belongs together stands on two sides or in two folds, and nothing of a benchmark in training."""
    found = {"on two sides": division.leaks, "in two folds": division.fold_leaks}
    evidence = "; ".join(
        f"{len(leaks):,} pairs stand {where}: "
        + ", ".join(f"{count:,} {SHARED.get(kind, kind)}" for kind, count in leaks.counts.items())
        for where, leaks in found.items()
        if leaks
    )
    holds = not evidence
    if holds:
        checked = sum(division.sizes[side] for side in SIDES)
        folds = "" if division.fold_leaks is None else " or in two folds"
        evidence = (
            f"{_sizes(division.sizes)}: no id, text, prompt, near-duplicate, contained text, group or cluster stands "
            f"on two sides{folds} (every pair of {checked:,} examples considered exactly, without the sketches that "
            "the split was made by)."
        )
    return decide("split.leakage", holds, evidence)


def _size_gate(recipe: Recipe, figures: dict[str, Any]) -> Gate:
    """Enough examples to judge by."""
    split, rows, clusters = recipe.split, figures["rows"], figures["clusters_by_side"]
    least = {"validation": split.min_validation, "test": split.min_test}
    named = ", ".join(
        f"{side} {rows[side]:,} examples in {clusters[side]:,} clusters ({figures['shares'][side]:.1%}"
        + (f", at least {least[side]:,} are needed)" if side in least else ")")
        for side in SIDES
    )
    return decide("split.size", all(rows[side] >= count for side, count in least.items()), f"{named}.")


def _refuse_empty(rows: dict[str, int], recipe: Recipe) -> None:
    empty = [side for side in SIDES if not rows[side]]
    if not empty:
        return
    why = "whole groups and clusters go to one side, and there are too few of them."
    remedy = "Group by something finer, add data, or draw again with another seed."
    if recipe.split.column:
        why = f"{recipe.split.column} says so of no example that is left."
        remedy = f"Let {', '.join(SIDES)} all stand in {recipe.split.column}, or leave split.column out."
    elif recipe.split.by_time:
        why = "what belongs together is as new as its newest, and too few times are told apart."
        remedy = "Give times that differ (created_at), add data, or leave split.by_time out."
    elif recipe.dataset.label:
        why = "each label is shared out in whole groups and clusters, and there are too few of them."
    raise UserError(
        f"{recipe.name}: no example falls on the side {' and '.join(empty)} ({_sizes(rows)}): {why}", remedy
    )


def _sizes(rows: dict[str, int]) -> str:
    return ", ".join(f"{side} {count:,}" for side, count in rows.items() if count or side in SIDES)


STAGE = Stage("split", SUMMARIES["split"], GATES["split"], reads, work)


def main() -> int:
    """`python -m pipelines.split RECIPE`; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import split

    sys.exit(split.main())
