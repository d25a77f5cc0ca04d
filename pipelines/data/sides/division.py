"""Placing a corpus' rows: placed, looked at for leaks as they will be written, and placed anew where something leaks.

The verifier knows nothing of how the rows were placed. What it finds and the search for clusters did not (pairs that
sketches miss, texts that hold each other, texts that are equal once they are masked) is told to the placing.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.leaks.close_texts import Meanings
from pipelines.data.leaks.leakage import Leaks, bound_texts, find_leaks, heal
from pipelines.data.leaks.placed import NOWHERE, Placed, read_placed
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.leaving import choose_rows
from pipelines.data.sides.past import Past, Tested
from pipelines.data.sides.placing import Placing, make_placing
from pipelines.data.sides.splitting import HELD, PLACES, TEST, TRAIN, Places
from pipelines.data.versioned.written import written_rows
from pipelines.progress import Progress
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

REPAIRS = 10
"""Times that what the verifier finds is added and the newcomers are placed anew."""
MENDED = ("text", "prompt", "near", "containment", "semantic")
"""Kinds of leaks that placing anew can mend, among newcomers."""


@dataclass(frozen=True)
class Outside:
    """What bears on a division beside the corpus and the table."""

    dropped: Collection[str] = ()
    """Ids that people decided to leave out."""
    tested: Tested | None = None
    """What was ever tested, where `split.freeze_test`."""
    benchmarks: Iterable[tuple[str, str]] = ()
    """(name, text) of each item that training must not have seen."""
    key: bytes = b""
    """The workspace's secret, under which groups with private names are called the same in all versions."""


@dataclass(frozen=True)
class Division:
    """Rows of a corpus and their places, and what leaks."""

    rows: "NDArray[np.int64]"
    """Rows that are written, ascending; the arrays below have an entry for each."""
    places: Places
    fold: "NDArray[np.int8] | None"
    """Fold of the rows for training, -1 for others."""
    old: "NDArray[np.bool_]"
    """Rows that the last table held: they stand where they stood."""
    leaks: Leaks
    fold_leaks: Leaks | None
    """What stands in two folds of the training side; None: there are no folds."""
    checked: Placed
    """The rows as the verifier saw them: leaks are numbers of its rows."""
    left_out: "dict[str, NDArray[np.int64]]"
    """Reason -> rows of the corpus (see `leaving.REASONS`)."""
    missed: dict[str, int]
    """Kind -> pairs that the search for clusters did not know, found by the verifier and kept together since."""
    instructions: dict[int, int]
    """A row of the corpus -> rows with its prompt, which are too many for it to tie them."""
    cutoffs: tuple[int, int] | None
    """The times of a temporal split."""
    healing: int
    """Rows that are, or with split.heal would be, held out so that the sides which the data bring leak nothing."""
    mask: Masking
    """How what is private is replaced."""

    @property
    def sizes(self) -> dict[str, int]:
        """Place -> its rows."""
        import numpy as np

        counts = np.bincount(self.places.side, minlength=len(PLACES)).tolist()
        return dict(zip(PLACES, counts, strict=True))

    def batches(self, corpus: Corpus) -> "Iterator[pa.RecordBatch]":
        """The rows as they are written."""
        return written_rows(corpus, self.rows, self.places, self.fold, mask=self.mask)


@dataclass
class _Known:
    """What grows from round to round."""

    edges: "NDArray[np.int64]"
    """Pairs of numbers of texts that belong together."""
    out: "NDArray[np.int8]"
    """For each row why it is left out, a number into _LATE; -1: it is not."""
    held: "NDArray[np.bool_]"
    """Rows that are held out to heal."""
    missed: dict[str, int] = field(default_factory=dict)
    healing: int = 0


_LATE = ("benchmarks", "tested_before")


def divide(
    corpus: Corpus, evidence: Evidence, recipe: Recipe, past: Past, outside: Outside, progress: Progress
) -> Division:
    """Places for all rows that enter, and the leaks that are left."""
    import numpy as np
    import pyarrow as pa

    mask = Masking(recipe.audit.private.kinds if recipe.audit.private.action == "mask" else (), outside.key)
    leaving = choose_rows(corpus, evidence, recipe, past, outside.dropped, mask)
    placing = make_placing(corpus, leaving.rows, evidence.text, recipe, past, outside.tested, mask)
    size = len(leaving.rows)
    known = _Known(
        np.stack([evidence.edges[name].to_numpy() for name in ("left", "right")], 1).astype(np.int64),
        np.full(size, -1, np.int8),
        np.zeros(size, np.bool_),
    )
    pull = placing.items.pull
    places = placing.place(known.edges, known.held)
    testing = placing.items.ids[places.side == TEST]
    tested = (
        list(outside.tested.texts(recipe.dataset.instruction, pa.array(testing.astype(str)))) if outside.tested else []
    )
    progress.say(f"split: {size:,} rows are placed; looking for what stands on two sides.")
    items: Iterable[tuple[str, str]] = chain(tested, outside.benchmarks)
    if evidence.vectors is not None:
        items = list(items)
    placed = read_placed(
        written_rows(corpus, leaving.rows, mask=mask), recipe.dataset.instruction, items, recipe.split.shared_prompts
    )
    meanings = _meanings(evidence, placing.items.text, list(items), recipe, progress)

    def search(standing: Placed) -> Leaks:
        return find_leaks(standing, recipe.audit.near_duplicate_threshold, recipe.split.containment, meanings)

    for repairs in range(REPAIRS + 1):
        if pull is not None:
            known.out[(pull != 0) & (places.side == TRAIN)] = _LATE.index("tested_before")
        seen = _seen(placed, places, known)
        leaks = search(seen)
        given = placing.given is not None
        if repairs == REPAIRS or not _mend(known, seen, leaks, placing.items.text, recipe, len(tested), given):
            break
        progress.say(f"split: {len(leaks):,} pairs stand on two sides; placing anew with them together.")
        places = placing.place(known.edges, known.held)
    stay = known.out == -1
    fold, fold_leaks = fold_rows(placing, places, known, seen, search)
    candidates = leaving.rows
    for number, reason in enumerate(_LATE):
        leaving.leave(reason, candidates[known.out == number])
    return Division(
        rows=leaving.rows,
        places=Places(places.side[stay], places.cluster[stay]),
        fold=None if fold is None else fold[stay],
        old=placing.history.stays[stay],
        leaks=leaks,
        fold_leaks=fold_leaks,
        checked=seen,
        left_out=leaving.left,
        missed=known.missed,
        instructions=placing.instructions,
        cutoffs=placing.cutoffs,
        healing=known.healing,
        mask=mask,
    )


def _meanings(
    evidence: Evidence,
    text: "NDArray[np.int64]",
    items: Sequence[tuple[str, str]],
    recipe: Recipe,
    progress: Progress,
) -> Meanings | None:
    """The vectors that the audit left, of the rows with these numbers of texts, and those of the items."""
    import numpy as np

    from pipelines.data.similarity.semantic import embed_texts, model_folder

    vectors, semantic = evidence.vectors, recipe.audit.semantic
    if vectors is None or semantic is None:
        return None
    own = np.zeros((0, len(vectors.mean)), np.float32)
    if items:
        folder = model_folder(semantic, recipe.base)
        own = embed_texts([text for _, text in items], folder, vectors.mean, progress)
    place = np.cumsum(evidence.text == np.arange(len(evidence.text))) - 1
    return Meanings(vectors.units, place[text], own, semantic.threshold)


def fold_rows(
    placing: Placing, places: Places, known: _Known, seen: Placed, search: "Callable[[Placed], Leaks]"
) -> "tuple[NDArray[np.int8] | None, Leaks | None]":
    """(the fold of each row that is learnt from, what stands in two folds all the same); None without folds.

    Within the training side nothing was looked for yet: here each component is a side of its own, until the verifier
    finds nothing more that two of them share.
    """
    import numpy as np

    count = placing.recipe.split.folds
    if count is None:
        return None, None
    learnt, edges = (places.side == TRAIN) & (known.out == -1), known.edges
    component = placing.components(learnt, edges)
    for _ in range(REPAIRS):
        leaks = search(seen.apart(component))
        new = _unknown(bound_texts(seen, leaks, tuple(leaks.counts), placing.items.text), edges)
        if not len(new):
            break
        edges = np.concatenate((edges, new))
        component = placing.components(learnt, edges)
    fold = placing.folds(component, count)
    return fold, search(seen.apart(fold))


def _seen(placed: Placed, places: Places, known: _Known) -> Placed:
    """The rows with their sides and clusters, as the verifier is to see them."""
    import numpy as np

    side = np.where((places.side == HELD) | (known.out >= 0), NOWHERE, places.side)
    cluster = np.zeros(len(placed), np.uint64)
    cluster[: placed.rows] = np.unique(places.cluster, return_inverse=True)[1] + 1
    return replace(placed.on(side), keys=placed.keys | {"cluster": cluster})


def _mend(
    known: _Known,
    seen: Placed,
    leaks: Leaks,
    text: "NDArray[np.int64]",
    recipe: Recipe,
    tested: int,
    given: bool,
) -> bool:
    """Add what the leaks tell; whether that was anything new."""
    import numpy as np

    before = (len(known.edges), int((known.out >= 0).sum()), int(known.held.sum()))
    item, row = (np.maximum(*leaks.of("benchmark")), np.minimum(*leaks.of("benchmark")))
    theirs = item < seen.rows + tested
    for number, which in enumerate((~theirs, theirs)):
        # A pair stands for all rows of the same text.
        like = np.isin(text, text[row[which]]) & (seen.side[: seen.rows] == TRAIN)
        known.out[like & (known.out == -1)] = number
    for kind in MENDED:
        pairs = bound_texts(seen, leaks, (kind,), text)
        new = _unknown(pairs, known.edges)
        known.edges = np.concatenate((known.edges, new))
        if len(new) and not given:
            known.missed[kind] = known.missed.get(kind, 0) + len(new)
    if given and leaks.counts.keys() - {"benchmark"}:
        going = heal(seen, leaks) & (known.out == -1)
        known.healing += int((going & ~known.held).sum())
        if recipe.split.heal:
            known.held |= going
        else:
            return False
    return before != (len(known.edges), int((known.out >= 0).sum()), int(known.held.sum()))


def _unknown(pairs: "NDArray[np.int64]", edges: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """The distinct pairs (lower first) of two different numbers that are not among the edges."""
    import numpy as np

    base = max(pairs.max(initial=0), edges.max(initial=0)) + 1
    codes = np.unique(pairs[:, 0] * base + pairs[:, 1])
    edges = np.sort(edges, axis=1)
    codes = codes[(codes // base != codes % base) & ~np.isin(codes, edges[:, 0] * base + edges[:, 1])]
    found: NDArray[np.int64] = np.stack((codes // base, codes % base), 1)
    return found
