"""`sluice split`: sides that share nothing, as a versioned table."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines import audit, stage
from pipelines.data.example import Example, text_of
from pipelines.data.findings import masked
from pipelines.data.leakage import Leak, Placed, find_leaks
from pipelines.data.read import read_examples
from pipelines.data.splitting import HELD_OUT, SIDES, History, Item, Place, assign
from pipelines.data.survey import Survey
from pipelines.data.table import Past, make_table, read_past, read_version, table_fingerprint, write_table
from pipelines.fingerprint import fingerprint
from pipelines.gates import Finding, decide
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stage import Outcome, Stage, check_unmoved, require
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

REPAIRS = 10
"""Times that near-duplicates which the sketches missed are added and the newcomers are placed anew."""


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The audit's report, and the policy."""
    return {"audit": require(audit.STAGE, recipe, workspace).key, "policy": policy_of(recipe)}


def policy_of(recipe: Recipe) -> str:
    """Fingerprint of what the sides are drawn by: under another one the old places do not count."""
    return fingerprint(
        recipe.seed,
        recipe.split.model_dump(mode="json"),
        recipe.audit.near_duplicate_threshold,
        recipe.dataset.group_by or recipe.dataset.columns.get("group"),
    )


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Place every example, write the table, and look for leaks in what was written.

    `fresh` forgets the places that were given before.
    """
    audited = require(audit.STAGE, recipe, workspace)
    reading = read_examples(recipe, workspace.settings)
    # Before anything is written: a version of the table counts for the places of all that come after it.
    check_unmoved("split", recipe, {"dataset": audited.fingerprints["dataset"]}, {"dataset": reading.fingerprint})
    uri, policy = workspace.uri("splits", recipe.name), policy_of(recipe)
    past = Past() if fresh else read_past(uri, policy)
    examples = once_each(reading.examples, past.groups)
    division = divide(examples, recipe, past.history)
    _refuse_empty(division.rows, recipe)
    version = write_table(uri, make_table(examples, division.places), policy, starts_over=fresh)
    written = read_version(uri, version)
    leaks = verify(written, recipe)
    progress.say(f"split: {_sizes(division.rows)}; version {version} of {uri}.")
    checked = sum(division.rows[side] for side in SIDES)
    evidence = (
        f"{_sizes(division.rows)}: no id, text, near-duplicate, group or cluster stands on two sides "
        f"(every pair of {checked:,} examples considered exactly, without the sketches that the split was made by)."
    )
    if leaks:
        kinds = Counter(leak.kind for leak in leaks)
        named = ", ".join(f"{count} by {kind}" for kind, count in kinds.items())
        evidence = f"{len(leaks)} pairs stand on two sides: {named}."
    return Outcome(
        gates=(decide("split.leakage", not leaks, evidence),),
        findings=(
            *leak_findings(leaks, examples),
            *_notes(len(reading.examples) - len(examples), division, past, recipe),
        ),
        figures=_figures(examples, division, past, recipe, len(reading.examples)),
        produced={"table": uri, "version": str(version), "split": table_fingerprint(written)},
        read={"audit": audited.key},
    )


def once_each(examples: list[Example], groups: dict[str, str | None]) -> list[Example]:
    """One row of each id, whatever the order.

    That of the group it was in before, then one by a person, as whose the audit counted it, then the first group's.
    """
    chosen: dict[str, tuple[Any, Example]] = {}
    for example in examples:
        kept_group = example.id not in groups or example.group == groups[example.id]
        rank = (
            not kept_group,
            not example.by_a_person,
            *(example.group or "", example.source or "", example.annotator or "", example.meta),
        )
        if example.id not in chosen or rank < chosen[example.id][0]:
            chosen[example.id] = (rank, example)
    return [example for _, example in chosen.values()]


@dataclass(frozen=True)
class Division:
    """The places of the examples."""

    places: dict[str, Place]
    missed: int
    """Pairs of near-duplicates that the sketches missed, found by the exact search and kept together since."""

    @property
    def rows(self) -> dict[str, int]:
        """Side -> its examples."""
        counts = Counter(place.side for place in self.places.values())
        return {side: counts[side] for side in (*SIDES, HELD_OUT)}


def divide(examples: list[Example], recipe: Recipe, history: History) -> Division:
    """Places for all examples; what the sketches miss is added and the newcomers are placed anew."""
    survey = Survey(examples, recipe.audit.near_duplicate_threshold, recipe.dataset.instruction)
    text = {id: survey.texts[number] for id, number in survey.text_of_id.items()}
    items = [Item(example.id, text[example.id], example.group) for example in examples]
    near = {(survey.texts[left], survey.texts[right]) for left, right, _ in survey.pairs}
    shares, found = recipe.split.model_dump(), len(near)
    for _ in range(REPAIRS):
        places = assign(items, near, shares, recipe.seed, history)
        placed = [Placed(item.id, item.text, places[item.id].side) for item in items if places[item.id].side in SIDES]
        leaks = find_leaks(placed, survey.threshold)
        missed = {(text[leak.left], text[leak.right]) for leak in leaks if leak.kind == "near"}
        if missed <= near:
            break
        near |= missed
    return Division(places, len(near) - found)


def verify(table: "pa.Table", recipe: Recipe) -> list[Leak]:
    """The leaks in a written split: from its rows alone, by another computation than the one that made it."""
    placed = [
        Placed(row["id"], _text(row["messages"], recipe), row["split"], row["group"], row["cluster"])
        for row in table.to_pylist()
        if row["split"] != HELD_OUT
    ]
    return find_leaks(placed, recipe.audit.near_duplicate_threshold)


def leak_findings(leaks: list[Leak], examples: list[Example]) -> Iterator[Finding]:
    """One finding for each kind of leak, its pairs listed."""
    by_id = {example.id: example for example in examples}
    for kind in dict.fromkeys(leak.kind for leak in leaks):
        pairs = [leak for leak in leaks if leak.kind == kind]
        yield Finding(
            code=f"split.leakage.{kind}",
            severity="error",
            message=f"{len(pairs)} pairs of examples share their {kind} across sides.",
            count=len(pairs),
            samples=tuple(
                {
                    "left": leak.left[:12],
                    "right": leak.right[:12],
                    "similarity": round(leak.similarity, 3),
                    "left_text": masked(text_of(by_id[leak.left].turns), 60),
                    "right_text": masked(text_of(by_id[leak.right].turns), 60),
                }
                for leak in pairs[:20]
            ),
            remedy="`sluice split RECIPE --fresh` places every example anew; often a group was renamed.",
        )


def _notes(repeats: int, division: Division, past: Past, recipe: Recipe) -> Iterator[Finding]:
    """What is no leak, and yet worth knowing."""
    rows = division.rows
    if rows[HELD_OUT]:
        held = [id for id, place in division.places.items() if place.side == HELD_OUT]
        yield Finding(
            code="split.held_out",
            severity="warning",
            message=f"{len(held):,} examples belong to two sides and enter neither.",
            count=len(held),
            samples=tuple({"id": id[:12]} for id in held[:5]),
            remedy="Nothing has to be done; `sluice split RECIPE --fresh` would place every example anew.",
        )
    if repeats:
        yield Finding(
            code="split.repeats",
            severity="info",
            message=f"{repeats:,} rows repeat another exactly and enter once.",
            count=repeats,
            remedy="Nothing has to be done.",
        )
    total = sum(rows[side] for side in SIDES)
    shares = recipe.split.model_dump()
    off = [side for side in SIDES if abs(rows[side] / total - shares[side]) > 0.05]
    if off:
        named = ", ".join(f"{side} {rows[side] / total:.1%} instead of {shares[side]:.0%}" for side in off)
        yield Finding(
            code="split.shares",
            severity="warning",
            message=f"Whole groups and clusters make the shares coarse: {named}.",
            count=len(off),
            remedy="Group by something finer, add data, or draw again with another seed.",
        )
    if past.started_over:
        yield Finding(
            code="split.started_over",
            severity="info",
            message="The seed, the shares, the threshold or the grouping changed: every example was placed anew.",
            count=total,
            remedy="Compare models only on test sides of the same policy.",
        )


def _figures(examples: list[Example], division: Division, past: Past, recipe: Recipe, rows: int) -> dict[str, Any]:
    total = sum(division.rows[side] for side in SIDES)
    groups: dict[str, set[str]] = {side: set() for side in (*SIDES, HELD_OUT)}
    for example in examples:
        if example.group:
            groups[division.places[example.id].side].add(example.group)
    kept = sum(1 for example in examples if example.id in past.history.present)
    return {
        "rows": division.rows,
        "shares": {side: round(division.rows[side] / total, 6) for side in SIDES},
        "wanted_shares": recipe.split.model_dump(),
        "groups": {side: len(found) for side, found in groups.items()},
        "clusters": len({place.cluster for place in division.places.values()}),
        "repeats_left_out": rows - len(examples),
        "kept_places": kept,
        "new_places": len(examples) - kept,
        "near_duplicates_missed_by_sketches": division.missed,
    }


def _refuse_empty(rows: dict[str, int], recipe: Recipe) -> None:
    empty = [side for side in SIDES if not rows[side]]
    if empty:
        raise UserError(
            f"{recipe.name}: no example falls on the side {' and '.join(empty)} ({_sizes(rows)}): "
            "whole groups and clusters go to one side, and there are too few of them.",
            "Group by something finer, add data, or draw again with another seed.",
        )


def _sizes(rows: dict[str, int]) -> str:
    return ", ".join(f"{side} {count:,}" for side, count in rows.items() if count or side in SIDES)


def _text(messages: str, recipe: Recipe) -> str:
    return text_of(json.loads(messages), recipe.dataset.instruction)


STAGE = Stage(
    name="split",
    summary="Put the examples on sides that share nothing, as a versioned table.",
    gates=("split.leakage",),
    reads=reads,
    work=work,
)


def main() -> int:
    """`python -m pipelines.split RECIPE`; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import split

    sys.exit(split.main())
