"""One row of each id: which of equal conversations enters a split."""

from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.past import Past

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_TOLD_APART = ("group", "source", "annotator", "meta", "label", "created_at", "collector")


def once_each(corpus: Corpus, past: Past, mask: Masking) -> "NDArray[np.int64]":
    """The rows to keep, one of each id, ascending; which one does not depend on the order of the rows.

    That of the group it was in before (under its own name, or under that which `mask` gives it), then one by a
    person, as whose the audit counted it, then the first group's.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    number = corpus.numbers("id")
    several = np.bincount(number)[number] > 1
    alone, repeated = np.flatnonzero(~several), np.flatnonzero(several)
    if not len(repeated):
        return alone
    cells = corpus.take(repeated, ["id", *_TOLD_APART])
    before, known = past.groups(cells["id"].combine_chunks())
    group = cells["group"].combine_chunks()
    called = pa.array([name and mask.name(name) for name in group.to_pylist()], pa.string())
    moved = known & ~_same(group, before) & ~_same(called, before)
    keys = {
        "number": pa.array(number[repeated]),
        "moved": pa.array(moved.astype(np.int8)),
        "machine": pa.array((~by_a_person(cells["annotator"].combine_chunks())).astype(np.int8)),
        **{name: cells[name].combine_chunks().fill_null("") for name in _TOLD_APART},
    }
    order = pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys]).to_numpy()
    first = np.unique(number[repeated][order], return_index=True)[1]
    kept: NDArray[np.int64] = np.sort(np.concatenate((alone, repeated[order[first]])))
    return kept


def by_a_person(annotator: "pa.Array") -> "NDArray[np.bool_]":
    """Whether a named person wrote or approved the answers: see `Example.by_a_person`."""
    import numpy as np
    import pyarrow.compute as pc

    named = pc.fill_null(annotator, "")
    machine = pc.starts_with(pc.utf8_lower(named), "model:")
    found: NDArray[np.bool_] = pc.and_not(pc.not_equal(named, ""), machine).to_numpy(zero_copy_only=False)
    return found.astype(np.bool_)


def _same(left: "pa.Array", right: "pa.Array") -> "NDArray[np.bool_]":
    """Where both are equal, or both null."""
    import pyarrow.compute as pc

    equal = pc.fill_null(pc.equal(left, right), False)
    found: NDArray[np.bool_] = pc.or_(equal, pc.and_(left.is_null(), right.is_null())).to_numpy(zero_copy_only=False)
    return found
