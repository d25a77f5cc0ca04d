"""Suspects: rows that look unlike the others, each with a score, a reason for people, and a threshold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.comparisons import by_models, languages, lengths
from pipelines.data.anomaly.folds import folds_by_cluster
from pipelines.data.anomaly.scored_rows import scored_rows
from pipelines.data.anomaly.suspects import Kind, Population, above, table_of
from pipelines.data.corpus import Corpus
from pipelines.progress import Progress
from pipelines.recipe_data import Anomalies

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LEAST_ROWS = 100
"""Fewer different texts are no population that a row could be unlike."""
NEED_OTHERS = ("length", "gibberish", "language", "boilerplate", "mismatch", "loss")
"""Kinds of suspects that are so by comparison."""


@dataclass(frozen=True)
class Suspects:
    """What was found."""

    table: "pa.Table"
    """row, kind, score (the higher, the worse), reason."""
    figures: dict[str, Any]
    """`rows`, `texts` (different ones), `language` (that of most) and `languages` (their counts), `not_run` (kind ->
    reason), `kinds` (kind -> threshold, count, and the score's quantiles where it is a distance)."""


def find_suspects(
    corpus: Corpus,
    cluster: "NDArray[np.int64]",
    settings: Anomalies,
    *,
    instruction: str,
    folds: int,
    seed: int,
    progress: Progress,
) -> Suspects:
    """The suspects of a corpus under these thresholds. Rows of a cluster count once in what is usual."""
    import numpy as np

    among = Population(corpus, settings, np.unique(cluster, return_index=True)[1].astype(np.int64))
    kinds = list(_alone(among))
    figures: dict[str, Any] = {"rows": len(corpus), "texts": len(among.representatives), "not_run": {}}
    wanted = [kind for kind in NEED_OTHERS if getattr(settings, kind) is not None]
    if len(among.representatives) < LEAST_ROWS:
        few = f"{len(among.representatives):,} different texts are too few to tell what is usual ({LEAST_ROWS})."
        figures["not_run"] = dict.fromkeys(wanted, few)
    else:
        if "length" in wanted:
            kinds.append(lengths(among))
        if "language" in wanted:
            kinds += languages(among, figures)
        if set(wanted) - {"length", "language"}:
            fold = folds_by_cluster(cluster, folds, seed)
            scores = scored_rows(
                corpus, fold, among.representatives, wanted, instruction=instruction, seed=seed, progress=progress
            )
            kinds += by_models(among, scores, wanted)
    figures["kinds"] = {
        kind.name: {"threshold": kind.threshold, "count": len(kind.rows)} | kind.quantiles for kind in kinds
    }
    return Suspects(table_of(kinds), figures)


def _alone(among: Population) -> Iterator[Kind]:
    """What rows tell by themselves."""
    import numpy as np

    settings, corpus = among.settings, among.corpus
    if settings.repetition is not None:
        share = corpus.array("score_repetition")
        yield above(
            "repetition", share, settings.repetition, lambda score: f"{score:.0%} of the answer repeats what it says."
        )
    if settings.encoding is not None:
        signs = corpus.array("score_encoding")
        yield above(
            "encoding",
            signs,
            settings.encoding,
            lambda score: f"{score:.2g} signs of a damaged encoding in a hundred characters.",
        )
    if settings.refusal:
        rows = np.flatnonzero(corpus.column("score_refusal").to_numpy())
        yield Kind("refusal", True, rows, np.ones(len(rows)), lambda *_: "The answer declines to answer.", {})
