"""Wrong labels: confident learning (Northcutt, Jiang and Chuang 2021) over out-of-fold probabilities.

What is looked at is the prompt alone: where the answer is the label, it would give away what it should be judged by.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.folds import folds_by_cluster
from pipelines.data.anomaly.label_model import LabelModel
from pipelines.data.anomaly.scored_rows import BATCH, texts_of_row
from pipelines.data.anomaly.word_ids import words_of
from pipelines.data.corpus import Corpus
from pipelines.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MOST_LABELS = 1000
"""More different labels are no categories."""
SAMPLE = 20_000
"""Rows that classifiers learn from, at most: one of a cluster."""
OF_EACH = 50
"""Rows of each label that are in the sample whatever its share."""


@dataclass(frozen=True)
class LabelNoise:
    """What was found."""

    table: "pa.Table"
    """row, kind (`label`), score (1 - probability of the given label), reason."""
    figures: dict[str, Any]
    """`share`: estimated share of wrong labels, None where nothing was looked at, for the `reason`; `labels`: label
    -> rows; `looked_at`: rows; `left_out`: rows whose label is too rare; `confusions`: what most often seems to be
    what."""


@dataclass(frozen=True)
class _Labelled:
    """Rows with labels that are frequent enough."""

    corpus: Corpus
    instruction: str
    names: list[str]
    label: "NDArray[np.int64]"
    """Number of each row's label among `names`; -1: none, or too rare."""
    fold: "NDArray[np.int8]"


def label_noise(
    corpus: Corpus,
    cluster: "NDArray[np.int64]",
    *,
    folds: int,
    seed: int,
    progress: Progress,
    instruction: str = "",
) -> LabelNoise:
    """The rows whose label a classifier of the other folds, confidently, would not give, and how many there are."""
    import numpy as np

    codes, values = corpus.codes("label")
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    order = np.argsort(-counts, kind="stable")
    figures: dict[str, Any] = {
        "share": None,
        "labels": {str(values[place]): int(counts[place]) for place in order[:MOST_LABELS] if counts[place]},
    }
    kept = order[counts[order] >= folds]
    if reason := _why_not(len(figures["labels"]), int((counts > 0).sum()), len(kept), folds):
        return LabelNoise(_table([], [], []), figures | {"reason": reason})
    number = np.full(len(values) + 1, -1, np.int64)
    number[kept] = np.arange(len(kept))
    # Rows without a label have the code -1: the last place, which says -1 too.
    labelled = _Labelled(
        corpus,
        instruction,
        [str(values[place]) for place in kept],
        number[codes],
        folds_by_cluster(cluster, folds, seed),
    )
    sample = _sample(labelled.label, np.unique(cluster, return_index=True)[1], seed)
    texts = [prompt for _, prompts in _prompts(labelled, sample) for prompt in prompts]
    model = LabelModel(words_of(texts), labelled.label[sample], labelled.fold[sample], len(kept))
    if not model.terms:
        reason = "No two prompts that are no near-duplicates share a word: there is nothing to tell labels by."
        return LabelNoise(_table([], [], []), figures | {"reason": reason})
    found = _inspected(labelled, model, progress)
    looked_at = int((labelled.label >= 0).sum())
    return LabelNoise(
        found[0],
        figures | found[1] | {"looked_at": looked_at, "left_out": int((codes >= 0).sum()) - looked_at},
    )


def _why_not(shown: int, labels: int, frequent: int, folds: int) -> str:
    """Why wrong labels cannot be looked for; empty when they can."""
    if not labels:
        return "No row has a label."
    if labels > MOST_LABELS:
        return f"{labels:,} different labels are no categories (at most {MOST_LABELS:,})."
    if frequent < 2:
        return f"Only {frequent} of {labels} labels has {folds} rows or more: there is nothing to tell apart."
    return ""


def _sample(label: "NDArray[np.int64]", representatives: "NDArray[Any]", seed: int) -> "NDArray[np.int64]":
    """Rows to learn from, ascending: OF_EACH of each label, then at random, SAMPLE at most."""
    import numpy as np

    rows = np.random.default_rng(seed).permutation(representatives[label[representatives] >= 0])
    by_label = np.argsort(label[rows], kind="stable")
    counts = np.bincount(label[rows])
    rank = np.empty(len(rows), np.int64)
    rank[by_label] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.lexsort((np.arange(len(rows)), rank >= OF_EACH))
    return np.sort(rows[first[: max(SAMPLE, int((rank < OF_EACH).sum()))]]).astype(np.int64)


def _prompts(labelled: _Labelled, rows: "NDArray[np.int64]") -> "Iterator[tuple[NDArray[np.int64], list[str]]]":
    """(rows, what was asked in them), batch by batch, of these ascending rows."""
    import numpy as np
    import pyarrow as pa

    start = 0
    for batch in labelled.corpus.batches(["messages"], BATCH):
        low, high = np.searchsorted(rows, (start, start + len(batch)))
        here = rows[low:high]
        if len(here):
            texts = batch["messages"].take(pa.array(here - start)).to_pylist()
            yield here, [texts_of_row(json.loads(text), labelled.instruction)[0] for text in texts]
        start += len(batch)


def _inspected(labelled: _Labelled, model: LabelModel, progress: Progress) -> "tuple[pa.Table, dict[str, Any]]":
    """The suspects and the figures, in two passes: what is usual for each label, then who is unusual."""
    import numpy as np
    from cleanlab.experimental.label_issues_batched import LabelInspector

    rows = np.flatnonzero(labelled.label >= 0)
    inspector = LabelInspector(num_class=len(labelled.names), verbose=False, n_jobs=1)
    proposed = np.zeros(len(rows), np.int64)
    confidence = np.zeros(len(rows), np.float32)
    with progress.bar("Looking for wrong labels", 2 * len(rows)) as bar:
        for step in range(2):
            done = 0
            for here, prompts in _prompts(labelled, rows):
                probabilities = model.probabilities(words_of(prompts), labelled.fold[here])
                given = labelled.label[here]
                if step == 0:
                    inspector.update_confident_thresholds(given, probabilities)
                else:
                    inspector.score_label_quality(given, probabilities)
                    proposed[done : done + len(here)] = probabilities.argmax(axis=1)
                    confidence[done : done + len(here)] = probabilities.max(axis=1)
                done += len(here)
                bar.update(step * len(rows) + done)
    issues = np.asarray(inspector.get_label_issues(), np.int64)
    issues = issues[proposed[issues] != labelled.label[rows[issues]]]
    given, better = labelled.label[rows[issues]], proposed[issues]
    scores = 1 - np.asarray(inspector.get_quality_scores())[issues]
    names = labelled.names
    reasons = [
        f"The label is {names[old]!r}; a model of the other folds says {names[new]!r} ({sure:.0%} certain)."
        for old, new, sure in zip(given, better, confidence[issues], strict=True)
    ]
    figures = {
        "share": int(inspector.get_num_issues(silent=True)) / len(rows),
        "confusions": _confusions(given, better, names),
    }
    return _table(rows[issues], scores, reasons), figures


def _confusions(given: "NDArray[np.int64]", better: "NDArray[np.int64]", names: list[str]) -> list[dict[str, Any]]:
    """The ten commonest pairs of given and proposed label."""
    import numpy as np

    pairs, count = np.unique(np.stack((given, better), axis=1), axis=0, return_counts=True)
    first = np.argsort(-count, kind="stable")[:10]
    return [
        {"given": names[pairs[place][0]], "proposed": names[pairs[place][1]], "rows": int(count[place])}
        for place in first
    ]


def _table(rows: Any, scores: Any, reasons: list[str]) -> "pa.Table":
    import pyarrow as pa

    return pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "kind": pa.array(["label"] * len(reasons), pa.string()),
            "score": pa.array(scores, pa.float32()),
            "reason": pa.array(reasons, pa.string()),
        }
    )
