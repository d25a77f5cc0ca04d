"""Which side a component gets that belongs to nobody yet: by a hash, by its label, by its time. And folds.

Pure. Each maker below returns a `splitting.Choose`.
"""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipelines.data.sides.splitting import SIDES, TRAIN, Choose, Components

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEVER = -(2**63)
"""The time of what does not say when it was made."""


def point(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


def by_hash(shares: Mapping[str, float], seed: int, rows: int) -> Choose:
    """Each component by its own seeded hash against the shares: what it draws is the same whatever else there is.

    Of `rows` rows in all, a component that is larger than the whole side that it drew goes to training: a test
    side of hardly more than one cluster would measure that cluster. Of more rows it might have stayed.
    """

    def choose(components: Components) -> "NDArray[np.int8]":
        import numpy as np

        points = np.array([point(key, seed) for key in components.keys])
        # One after the other, as floats add up: an end that moved by a hair would move whoever stands on it.
        ends = np.cumsum([shares[side] for side in SIDES])[:-1]
        drawn = np.searchsorted(ends, points, side="right").astype(np.int8)
        room = np.array([shares[side] * rows for side in SIDES])[drawn]
        sizes = np.bincount(components.component, minlength=len(drawn))
        return np.where(sizes > room, TRAIN, drawn).astype(np.int8)

    return choose


def by_label(
    label: "NDArray[np.int64]", standing: "NDArray[np.int64]", shares: Mapping[str, float], seed: int
) -> Choose:
    """Shares that hold within each label, as far as whole components allow.

    `label`: for each item the number of its label, the last number for none; `standing`: for each label the rows
    that each side holds already, of shape (labels, 3).

    A component counts for its most common label. Those of a label come one after the other in the order of their
    seeded hashes, and each goes to the side that then lacks most rows of what its share of the label comes to, with
    what was placed before counted in. What rounding leaves of the other labels is carried into that, up to the size
    of the label's largest component: else many labels of a few rows would all leave out the same small side. So the
    side of a component depends on the others: unlike a side drawn by hash alone it is not the same in another data
    set. What has a side keeps it whatever comes, and many small waves of newcomers end at the same shares as one
    large one.
    """

    def choose(components: Components) -> "NDArray[np.int8]":
        import numpy as np

        count, labels = len(components.keys), len(standing)
        main = _commonest(components.component, label[components.members], labels)
        sizes = np.bincount(components.component, minlength=count).tolist()
        of_all = [shares[side] for side in SIDES]
        own = (np.outer(standing.sum(axis=1), of_all) - standing).tolist()
        carried = np.sum(own, axis=0).tolist()
        points = [point(key, seed) for key in components.keys]
        ordered = sorted(range(count), key=lambda number: (main[number], points[number], components.keys[number]))
        chosen = np.zeros(count, np.int8)
        for name, numbers in groupby(ordered, key=main.__getitem__):
            mine = list(numbers)
            others = [all_in_all - its for all_in_all, its in zip(carried, own[name], strict=True)]
            placed = [sizes[number] for number in mine]
            new = [sum(placed) * share for share in of_all]
            sides = _fill([its + more for its, more in zip(own[name], new, strict=True)], others, placed)
            chosen[mine] = sides
            for side, size in zip(sides, placed, strict=True):
                new[side] -= size
            carried = [before + left for before, left in zip(carried, new, strict=True)]
        return chosen

    return choose


def _fill(lacking: list[float], carried: list[float], sizes: list[int]) -> list[int]:
    """For each size the side that lacks most when its turn comes.

    `carried`: what the sides lack of other labels; it counts for the largest size at most, so that a label of many
    small components does not make up for a large one of another.
    """
    most = max(map(abs, carried))
    scale = min(1.0, max(sizes) / most) if most else 0.0
    wanting = [own + scale * other for own, other in zip(lacking, carried, strict=True)]
    sides = []
    for size in sizes:
        side = wanting.index(max(wanting))
        wanting[side] -= size
        sides.append(side)
    return sides


def _commonest(component: "NDArray[np.int64]", label: "NDArray[np.int64]", labels: int) -> "NDArray[np.int64]":
    """For each component its members' most common label, the first of several."""
    import numpy as np

    cells, counts = np.unique(component * labels + label, return_counts=True)
    order = np.lexsort((cells, -counts, cells // labels))
    first = np.unique(cells[order] // labels, return_index=True)[1]
    found: NDArray[np.int64] = cells[order[first]] % labels
    return found


class ByTime:
    """The newest components to test, those before them to validation, the rest to training.

    A component is as new as its newest member. `cutoffs`: the times (microseconds) from which a component goes to
    validation and to test; without them the first call settles them, so that the rows come to the shares. They are
    kept with the table: newcomers are placed by the same ones.
    """

    def __init__(
        self, time: "NDArray[np.int64]", shares: Mapping[str, float], cutoffs: tuple[int, int] | None = None
    ) -> None:
        self.time, self.shares, self.cutoffs = time, shares, cutoffs

    def __call__(self, components: Components) -> "NDArray[np.int8]":
        """A side for each component."""
        import numpy as np

        newest = np.full(len(components.keys), NEVER)
        np.maximum.at(newest, components.component, self.time[components.members])
        if (unknown := newest == NEVER).any():
            raise UserError(
                f"split.by_time: {int(unknown[components.component].sum()):,} examples do not say when they were made "
                "(created_at), and none that they belong to does.",
                "Map the column with the time to created_at in dataset.columns, or leave split.by_time out.",
            )
        if self.cutoffs is None:
            self.cutoffs = self._settled(np.sort(newest[components.component]))
        return np.searchsorted(np.array(self.cutoffs), newest, side="right").astype(np.int8)

    def _settled(self, rows: "NDArray[np.int64]") -> tuple[int, int]:
        """The times at which the rows, each as new as its component and sorted, reach the shares."""
        ends = (self.shares["train"], self.shares["train"] + self.shares["validation"])
        first, second = (int(rows[min(round(end * len(rows)), len(rows) - 1)]) for end in ends) if len(rows) else (0, 0)
        return first, second


def folds(component: "NDArray[np.int64]", keys: Sequence[str], count: int, seed: int) -> "NDArray[np.int8]":
    """For each row of the training side its fold, 0 to `count` - 1; whole components, and folds of like size.

    `component`: for each row the number of its component; `keys`: a name for each component. The largest component
    goes first, each to the smallest fold so far (Graham, "Bounds on multiprocessing timing anomalies", 1969), those
    of one size in the order of their seeded hashes. Folds are made anew with every version of the table.
    """
    import numpy as np

    sizes = np.bincount(component, minlength=len(keys)).tolist()
    points = [point(f"fold {key}", seed) for key in keys]
    heap, fold = [(0, number) for number in range(count)], np.zeros(len(keys), np.int8)
    for number in sorted(range(len(keys)), key=lambda number: (-sizes[number], points[number])):
        rows, smallest = heap[0]
        fold[number] = smallest
        heapq.heapreplace(heap, (rows + sizes[number], smallest))
    return fold[component]
