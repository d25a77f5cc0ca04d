"""What a split has to tell, beside its gates: findings with sample rows and a remedy each, and figures."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.example import text_of
from pipelines.data.privacy.private import RULED, Masking
from pipelines.data.sides.division import Division
from pipelines.data.sides.past import Past, lookup
from pipelines.data.sides.splitting import HELD, PLACES, SIDES
from pipelines.gates import Finding
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LISTED = 20
"""Pairs that a finding lists; `leaks.parquet` beside the evidence holds more."""

SHARED = {
    "id": "the same example",
    "text": "the same text",
    "prompt": "answers to the same prompt",
    "group": "of one group",
    "cluster": "of one cluster",
    "near": "near-duplicates",
    "containment": "one holds most of the other",
    "semantic": "the same by meaning",
    "benchmark": "of a benchmark, and in training",
}
"""Kind of leak -> what the two of a pair are to one another."""


def leak_findings(division: Division, leaks: "pa.Table", corpus: Corpus, recipe: Recipe) -> Iterator[Finding]:
    """One finding for each kind of leak, its first pairs listed; and, for given sides, the split that heals them."""
    import pyarrow.compute as pc

    remedy = "`sluice split RECIPE --fresh` places every example anew; often a group was renamed."
    if recipe.split.column:
        remedy = f"Set split.heal=true: it would hold out {division.healing:,} examples; or mend {recipe.split.column}."
    for kind, count in division.leaks.counts.items():
        pairs = leaks.filter(pc.equal(leaks["kind"], kind)).slice(0, LISTED)
        texts = _texts(corpus, pairs, recipe)
        mend = f"{remedy} Or, if it only instructs, set split.shared_prompts lower." if kind == "prompt" else remedy
        yield Finding(
            code=f"split.leakage.{kind}",
            severity="error",
            message=f"{count:,} pairs stand on two sides: {SHARED.get(kind, kind)}.",
            count=count,
            samples=tuple(
                {
                    "left": pair["left"][:12],
                    "right": pair["right"][:12],
                    "similarity": round(pair["similarity"], 3),
                    "left_text": texts.get(pair["left"], ""),
                    "right_text": texts.get(pair["right"], ""),
                }
                for pair in pairs.to_pylist()
            ),
            remedy=mend,
        )
    if division.fold_leaks:
        yield Finding(
            code="split.leakage.folds",
            severity="error",
            message=f"{len(division.fold_leaks):,} pairs of examples that belong together stand in two folds.",
            count=len(division.fold_leaks),
            samples=tuple(division.fold_leaks.table(division.checked, LISTED).to_pylist()),
            remedy="`sluice split RECIPE --fresh` folds anew.",
        )
    if recipe.split.column and division.healing:
        done = "are held out" if recipe.split.heal else "would have to be held out"
        yield Finding(
            code="split.leakage.heal",
            severity="info" if recipe.split.heal else "warning",
            message=f"{division.healing:,} examples {done} for the sides in {recipe.split.column} to share nothing: "
            "training gives way to validation, both to test.",
            count=division.healing,
            remedy="Nothing has to be done." if recipe.split.heal else "Set split.heal=true.",
        )


def _texts(corpus: Corpus, pairs: "pa.Table", recipe: Recipe) -> dict[str, str]:
    """Id -> a masked beginning of its text."""
    import pyarrow as pa

    from pipelines.data.auditing.samples import masked

    wanted = pa.chunked_array([*pairs["left"].chunks, *pairs["right"].chunks], pa.string()).unique()
    rows, known = lookup(wanted, corpus.column("id"))
    ids = wanted.filter(pa.array(known)).to_pylist()
    messages = corpus.take(rows, ["messages"])["messages"].to_pylist()
    texts = [text_of(json.loads(each), recipe.dataset.instruction) for each in messages]
    return {id: masked(text, 60, recipe.audit.private.kinds) for id, text in zip(ids, texts, strict=True)}


def notes(division: Division, past: Past, recipe: Recipe, corpus: Corpus) -> Iterator[Finding]:
    """What is no leak, and yet worth knowing."""
    yield from _held_out(division, corpus)
    yield from _left_out(division, corpus)
    if recipe.split.shared_prompts > 1:
        yield from _instructions(division, recipe, corpus)
    sizes = division.sizes
    total = sum(sizes[side] for side in SIDES)
    shares = recipe.split.shares
    off = [side for side in SIDES if abs(sizes[side] / total - shares[side]) > 0.05]
    if off and not recipe.split.column:
        named = ", ".join(f"{side} {sizes[side] / total:.1%} instead of {shares[side]:.0%}" for side in off)
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
            message="The seed, the shares, the threshold, the grouping or another rule of the split changed: every "
            "example was placed anew.",
            count=total,
            remedy="Compare models only on test sides of the same policy.",
        )
    if division.leaks.boilerplate:
        yield Finding(
            code="split.leakage.not_looked_at",
            severity="info",
            message=f"{division.leaks.boilerplate:,} sequences of 13 words stand in too many texts to join them.",
            count=division.leaks.boilerplate,
            remedy="Nothing has to be done; near-duplicates and groups are looked at all the same.",
        )
    if not division.leaks.complete:
        yield Finding(
            code="split.leakage.not_counted",
            severity="info",
            message=f"Of some kind more pairs stand on two sides than the {len(division.leaks):,} that are counted.",
            count=len(division.leaks),
            remedy="Mend those that are listed; the next split counts what is left.",
        )


def _held_out(division: Division, corpus: Corpus) -> Iterator[Finding]:
    import numpy as np

    held = np.flatnonzero(division.places.side == HELD)
    if len(held):
        ids = corpus.take(division.rows[held[:5]], ["id"])["id"].to_pylist()
        yield Finding(
            code="split.held_out",
            severity="warning",
            message=f"{len(held):,} examples belong to two sides and enter neither.",
            count=len(held),
            samples=tuple({"id": id[:12]} for id in ids),
            remedy="Nothing has to be done; `sluice split RECIPE --fresh` would place every example anew.",
        )


def _instructions(division: Division, recipe: Recipe, corpus: Corpus) -> Iterator[Finding]:
    """Prompts of so many rows that these may stand on two sides."""
    from pipelines.data.auditing.samples import masked
    from pipelines.data.profile import prompt_of

    counts = sorted(division.instructions.items(), key=lambda item: (-item[1], item[0]))
    if counts:
        shown = corpus.take([row for row, _ in counts[:5]], ["messages"])["messages"].to_pylist()
        prompts = [prompt_of(json.loads(messages), recipe.dataset.instruction) for messages in shown]
        yield Finding(
            code="split.instructions",
            severity="info",
            message=f"{len(counts):,} prompts stand in more than {recipe.split.shared_prompts:,} rows each, "
            f"{sum(division.instructions.values()):,} in all: they are taken for instructions, so their rows may stand "
            "on different sides.",
            count=len(counts),
            samples=tuple(
                {"prompt": masked(prompt, 60), "rows": rows} for prompt, (_, rows) in zip(prompts, counts, strict=False)
            ),
            remedy="If they are questions, raise split.shared_prompts, or group by the prompt.",
        )


_LEFT = {
    "repeats": ("repeat another exactly and enter once", "Nothing has to be done."),
    "reviews": ("were dropped by people", "`sluice data review RECIPE keep ID` takes a decision back."),
    "private": ("hold personal data or secrets and are left out", "audit.private.action=mask keeps them, masked."),
    "near_duplicates": ("are near-duplicates of others and are left out", "split.dedup=report keeps them."),
    "benchmarks": ("resemble items of split.benchmarks and are kept from training", "Nothing has to be done."),
    "tested_before": ("were tested once, or resemble what was, and are kept from training", "Nothing has to be done."),
}


def _left_out(division: Division, corpus: Corpus) -> Iterator[Finding]:
    for reason, (what, remedy) in _LEFT.items():
        rows = division.left_out.get(reason, ())
        if len(rows):
            ids = corpus.take(rows[:5], ["id"])["id"].to_pylist() if reason != "repeats" else []
            yield Finding(
                code=f"split.{reason}",
                severity="info",
                message=f"{len(rows):,} rows {what}.",
                count=len(rows),
                samples=tuple({"id": id[:12]} for id in ids),
                remedy=remedy,
            )


def split_figures(division: Division, past: Past, recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """What the report holds of the split in numbers."""
    import numpy as np

    sizes, places = division.sizes, division.places
    total = sum(sizes[side] for side in SIDES)
    group = corpus.codes("group")[0][division.rows]
    left_out = {reason: len(rows) for reason, rows in division.left_out.items()}
    clusters = np.unique(places.cluster, return_inverse=True)[1]
    return {
        "rows": sizes,
        "shares": {side: round(sizes[side] / total, 6) for side in SIDES},
        "wanted_shares": recipe.split.shares,
        "groups": _different(group, places.side),
        "clusters": int(clusters.max(initial=-1)) + 1,
        "clusters_by_side": _different(clusters, places.side),
        "repeats_left_out": left_out.pop("repeats"),
        "left_out": left_out,
        "kept_places": int(division.old.sum()),
        "new_places": int((~division.old).sum()),
        "near_duplicates_missed_by_sketches": division.missed.get("near", 0),
        "kept_together": division.missed,
        "masked_kinds": sorted(division.mask.kinds),
        "leaks": division.leaks.counts,
        "labels": _labels(division, recipe, corpus),
        "folds": None if division.fold is None else np.bincount(division.fold[division.fold >= 0]).tolist(),
        "cutoffs": _times(division.cutoffs),
        "healing": division.healing,
    }


def _different(codes: "NDArray[np.int64]", side: "NDArray[np.int8]") -> dict[str, int]:
    """Place -> different codes there; -1 is none."""
    import numpy as np

    return {name: len(np.unique(codes[(side == code) & (codes >= 0)])) for code, name in enumerate(PLACES)}


def _labels(division: Division, recipe: Recipe, corpus: Corpus) -> dict[str, dict[str, int]] | None:
    """Label -> side -> rows, of the fifty commonest."""
    import numpy as np

    if not recipe.dataset.label:
        return None
    codes, names = corpus.codes("label")
    counts = np.zeros((len(names) + 1, len(PLACES)), np.int64)
    np.add.at(counts, (codes[division.rows], division.places.side), 1)
    order = np.argsort(-counts.sum(axis=1), kind="stable")[:50]
    # A report is shown whatever the table holds.
    hiding = division.mask if division.mask.kinds else Masking(RULED)
    named = [*(hiding.name(name, "label") for name in names), "no label"]
    return {named[code]: dict(zip(PLACES, counts[code].tolist(), strict=True)) for code in order if counts[code].sum()}


def _times(cutoffs: tuple[int, int] | None) -> dict[str, str] | None:
    """Side -> the time from which an example is on it."""
    from datetime import UTC, datetime, timedelta

    if cutoffs is None:
        return None
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return {side: (start + timedelta(microseconds=at)).isoformat() for side, at in zip(SIDES[1:], cutoffs, strict=True)}
