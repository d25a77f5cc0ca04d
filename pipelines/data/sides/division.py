"""Placing a corpus' rows: placed, looked at for leaks as they will be written, and placed anew where something leaks.

The verifier knows nothing of how the rows were placed. What it finds and the search for clusters did not (pairs that
sketches miss, texts that hold each other, texts that are equal once they are masked) is told to the placing.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, permutations
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus
from pipelines.data.evidence import Evidence
from pipelines.data.leaks.leakage import KEYS, KINDS, Leaks, find_leaks, heal
from pipelines.data.leaks.placed import NOWHERE, Placed, read_placed
from pipelines.data.privacy.private import Masking
from pipelines.data.sides.leaving import choose_rows
from pipelines.data.sides.past import Past, Tested
from pipelines.data.sides.placing import make_placing
from pipelines.data.sides.splitting import HELD, PLACES, SIDES, TEST, TRAIN, Places
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
    """Pairs of text numbers that belong together."""
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
    size, edges = len(leaving.rows), evidence.edges
    known = _Known(
        np.stack((edges["left"].to_numpy(), edges["right"].to_numpy()), 1).astype(np.int64),
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
    placed = read_placed(
        written_rows(corpus, leaving.rows, mask=mask),
        recipe.dataset.instruction,
        chain(tested, outside.benchmarks),
        recipe.split.shared_prompts,
    )
    for repairs in range(REPAIRS + 1):
        if pull is not None:
            known.out[(pull != 0) & (places.side == TRAIN)] = _LATE.index("tested_before")
        seen = _seen(placed, places, known)
        leaks = find_leaks(seen, recipe.audit.near_duplicate_threshold, recipe.split.containment)
        leaks = _with(leaks, semantic_leaks(seen, placing.items.text, edges))
        given = placing.given is not None
        if repairs == REPAIRS or not _mend(known, seen, leaks, placing.items.text, recipe, len(tested), given):
            break
        progress.say(f"split: {len(leaks):,} pairs stand on two sides; placing anew with them together.")
        places = placing.place(known.edges, known.held)
    stay = known.out == -1
    fold = placing.folds(places, known.edges, ~stay)
    candidates = leaving.rows
    for number, reason in enumerate(_LATE):
        leaving.leave(reason, candidates[known.out == number])
    return Division(
        rows=leaving.rows,
        places=Places(places.side[stay], places.cluster[stay]),
        fold=None if fold is None else fold[stay],
        old=placing.history.stays[stay],
        leaks=leaks,
        checked=seen,
        left_out=leaving.left,
        missed=known.missed,
        instructions=placing.instructions,
        cutoffs=placing.cutoffs,
        healing=known.healing,
        mask=mask,
    )


def semantic_leaks(seen: Placed, text: "NDArray[np.int64]", edges: "pa.Table") -> Leaks:
    """The pairs of texts that mean the same, as the audit found them, of which rows stand on two sides.

    Every pair was compared then. Embedding all texts again would give the same vectors, and cost as much.
    """
    import numpy as np

    chosen = np.isin(edges["kind"].to_numpy(zero_copy_only=False), "semantic")
    left, right, value = (edges[name].to_numpy()[chosen] for name in ("left", "right", "similarity"))
    texts = int(max(text.max(initial=-1), left.max(initial=-1), right.max(initial=-1))) + 1
    # For each side and each text the first row, or -1.
    first = np.full((len(SIDES), texts), -1, np.int64)
    for side in range(len(SIDES)):
        rows = np.flatnonzero(seen.side[: seen.rows] == side)[::-1]
        first[side, text[rows]] = rows
    found = Leaks(np.zeros(0, np.int8), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    for here, there in permutations(range(len(SIDES)), 2):
        crossing = (first[here, left] >= 0) & (first[there, right] >= 0)
        pairs = first[here, left[crossing]], first[there, right[crossing]]
        kind = np.full(len(pairs[0]), KINDS.index("semantic"), np.int8)
        found = _with(found, Leaks(kind, *pairs, value[crossing].astype(np.float64)))
    return found


def _with(leaks: Leaks, more: Leaks) -> Leaks:
    import numpy as np

    return replace(
        leaks,
        kind=np.concatenate((leaks.kind, more.kind)),
        left=np.concatenate((leaks.left, more.left)),
        right=np.concatenate((leaks.right, more.right)),
        similarity=np.concatenate((leaks.similarity, more.similarity)),
    )


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
        pairs = leaks.of(kind)
        if kind in KEYS:
            pairs = _chained(seen.keys[kind][: seen.rows], pairs[0])
        pairs = np.sort(np.stack([text[rows] for rows in pairs], 1), axis=1)
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


def _chained(key: "NDArray[np.uint64]", rows: "NDArray[np.int64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """(left, right) of pairs that join all rows which have the key of one of `rows`, key by key."""
    import numpy as np

    members = np.flatnonzero(np.isin(key, key[rows]))
    members = members[np.argsort(key[members], kind="stable")]
    same = key[members][1:] == key[members][:-1]
    return members[:-1][same], members[1:][same]


def _unknown(pairs: "NDArray[np.int64]", edges: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """The distinct pairs (lower first) of two different numbers that are not among the edges."""
    import numpy as np

    base = max(pairs.max(initial=0), edges.max(initial=0)) + 1
    codes = np.unique(pairs[:, 0] * base + pairs[:, 1])
    edges = np.sort(edges, axis=1)
    codes = codes[(codes // base != codes % base) & ~np.isin(codes, edges[:, 0] * base + edges[:, 1])]
    found: NDArray[np.int64] = np.stack((codes // base, codes % base), 1)
    return found
