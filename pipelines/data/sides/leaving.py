"""Rows that do not enter a split, and why: repeats, what people dropped, private data, near-duplicates."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.once import by_a_person, once_each
from pipelines.data.sides.past import Past
from pipelines.data.similarity.dedup import keep_best, keep_first
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REASONS = ("repeats", "reviews", "private", "near_duplicates", "benchmarks", "tested_before")
"""Why a row is left out, in the order in which it is decided."""


@dataclass
class Leaving:
    """The rows that stay so far, ascending, and those that left."""

    rows: "NDArray[np.int64]"
    left: "dict[str, NDArray[np.int64]]" = field(default_factory=dict)
    """Reason -> rows of the corpus."""

    def leave(self, reason: str, going: "NDArray[np.int64]") -> None:
        """Take these rows out."""
        import numpy as np

        assert reason in REASONS
        self.left[reason] = going
        self.rows = self.rows[~np.isin(self.rows, going)]

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> rows, of all reasons."""
        return {reason: len(self.left.get(reason, ())) for reason in REASONS}


def choose_rows(
    corpus: Corpus, evidence: Evidence, recipe: Recipe, past: Past, dropped: Collection[str], mask: Masking
) -> Leaving:
    """What is left of the corpus before anything is placed.

    `dropped`: ids that people decided to leave out; `mask`: how the table calls groups with private names.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    everything = np.arange(len(corpus))
    leaving = Leaving(everything)
    leaving.leave("repeats", np.setdiff1d(everything, once_each(corpus, past, mask)))
    if dropped:
        listed = pc.is_in(corpus.column("id"), pa.array(sorted(dropped), pa.string())).to_numpy()
        leaving.leave("reviews", leaving.rows[listed[leaving.rows]])
    if recipe.audit.private.action == "drop" and "private" in corpus.columns:
        found = corpus.column("private").is_valid().to_numpy()
        leaving.leave("private", leaving.rows[found[leaving.rows]])
    if recipe.split.dedup != "report":
        leaving.leave("near_duplicates", leaving.rows[_superfluous(corpus, evidence, recipe, past, leaving.rows)])
    return leaving


def _superfluous(
    corpus: Corpus, evidence: Evidence, recipe: Recipe, past: Past, rows: "NDArray[np.int64]"
) -> "NDArray[np.bool_]":
    """All but one of each cluster; what the last table holds stays, and no newcomer enters beside it."""
    import numpy as np
    import pyarrow as pa

    cluster = np.unique(evidence.cluster[rows], return_inverse=True)[1].astype(np.int64)
    old = past.history(corpus.column("id").combine_chunks().take(pa.array(rows))).stays
    taken = np.zeros(len(rows), np.bool_)
    taken[cluster[old]] = True
    if recipe.split.dedup == "keep_first":
        kept = keep_first(cluster)
    else:
        person = by_a_person(corpus.column("annotator").combine_chunks())[rows]
        kept = keep_best(cluster, person, corpus.array("answer_words")[rows])
    superfluous: NDArray[np.bool_] = np.where(taken[cluster], ~old, ~kept)
    return superfluous
