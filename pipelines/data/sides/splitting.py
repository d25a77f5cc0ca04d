"""Assigning examples to sides: what belongs together stays together, and nothing old ever moves.

Pure, over arrays. Two examples belong together when they have the same text, when their texts are neighbours
(near-duplicates, for one), when they are of one group, or when they answer the same prompt. What belongs together,
directly or through others, goes to one side. An example that has a side keeps it; newcomers follow those that they
belong to; a newcomer that would join two sides enters none (HELD_OUT).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDES = ("train", "validation", "test")
HELD_OUT = "held_out"
PLACES = (*SIDES, HELD_OUT)
"""Where an example can stand; its number here is the code of its side."""
TRAIN, VALIDATION, TEST, HELD = range(4)
NEWCOMER = -1
"""The code of who has no side yet."""


@dataclass(frozen=True)
class Items:
    """What the assignment needs to know of each example: arrays of equal length."""

    ids: "NDArray[np.bytes_]"
    """Distinct."""
    text: "NDArray[np.int64]"
    """Number of its normalised text, from 0."""
    group: "NDArray[np.int64]"
    """Number of its group, -1 for none."""
    groups: Sequence[str]
    """Names of the groups by number."""
    prompt: "NDArray[np.int64] | None" = None
    """Number of its prompt, from 0; -1 for one that ties nobody."""
    pull: "NDArray[np.uint8] | None" = None
    """Sides (bits 1, 2, 4) that it is bound to by something that is not among the items."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ties(self) -> "tuple[NDArray[np.int64], ...]":
        """Group and prompt: what ties its examples to one side, and yet makes no cluster of them."""
        return (self.group,) if self.prompt is None else (self.group, self.prompt)


@dataclass(frozen=True)
class History:
    """The places that were given before, an entry for each item."""

    side: "NDArray[np.int8]"
    """Code of its side, or NEWCOMER."""
    cluster: "NDArray[np.bytes_]"
    """Id of its cluster; empty for a newcomer."""
    returns: "NDArray[np.bool_]"
    """Not in the last table but in an earlier one: it returns to its side, or enters none where somebody who
    belongs to it was put elsewhere meanwhile."""

    @property
    def stays(self) -> "NDArray[np.bool_]":
        """What the last table holds: these never move."""
        found: NDArray[np.bool_] = (self.side != NEWCOMER) & ~self.returns
        return found


@dataclass(frozen=True)
class Places:
    """Where each item stands."""

    side: "NDArray[np.int8]"
    """Code in PLACES."""
    cluster: "NDArray[np.bytes_]"
    """Id of its near-duplicate cluster: given once, never computed again."""


@dataclass(frozen=True)
class Components:
    """Newcomers that belong together, and to nobody who has a side."""

    keys: list[str]
    """What each component is drawn by: its first group's name, or its first id."""
    members: "NDArray[np.int64]"
    """Numbers of items."""
    component: "NDArray[np.int64]"
    """For each member the number of its component."""


Choose = Callable[[Components], "NDArray[np.int8]"]
"""A side for each component (see `drawing`)."""


def newcomers(size: int) -> History:
    """The history of items that were never seen."""
    import numpy as np

    return History(np.full(size, NEWCOMER, np.int8), np.zeros(size, "S1"), np.zeros(size, np.bool_))


def assign(items: Items, edges: "NDArray[np.int64]", choose: Choose, history: History | None = None) -> Places:
    """The place of every item. `edges`: pairs of text numbers that are neighbours, of shape (pairs, 2)."""
    import numpy as np

    history = history or newcomers(len(items))
    edges = edges.reshape(-1, 2)
    names, own, before = _names(items, history)
    around = _Surroundings(items, edges, history, before)
    side, cluster = history.side.copy(), before.copy()
    new = np.flatnonzero(~history.stays)
    bound = around.sides(items, history, new)
    component = components(items, new, edges, tied=True)
    chosen = _chosen(items, new, bound, component, choose)[component]
    fits = (bound & ~(1 << chosen).astype(np.uint8)) == 0
    side[new] = np.where(fits, chosen, HELD)
    # A cluster of its own: nobody shall follow what is held out.
    cluster[new[~fits]] = own[new[~fits]]
    kept = new[fits]
    near = components(items, kept, edges, tied=False)
    met = least(near, around.cluster[items.text[kept]])
    name = np.where(met < len(names), met, least(near, own[kept]))[near]
    cluster[kept] = np.where(history.returns[kept], before[kept], name)
    return Places(side, names[cluster])


def components(
    items: Items, members: "NDArray[np.int64]", edges: "NDArray[np.int64]", *, tied: bool
) -> "NDArray[np.int64]":
    """For each of `members` (numbers of items) the number, from 0, of the set of members that it belongs to.

    `tied`: through groups and prompts too, not only through texts.
    """
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    texts, text = _texts(items, edges), items.text[members]
    present = np.zeros(texts, np.bool_)
    present[text] = True
    # A text that no member has connects nobody.
    left, right = edges[present[edges].all(axis=1)].T
    size = texts
    for tie in items.ties if tied else ():
        number = tie[members]
        left = np.concatenate((left, text[number >= 0]))
        right = np.concatenate((right, size + number[number >= 0]))
        size += int(tie.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(left), np.bool_), (left, right)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    found: NDArray[np.int64] = np.unique(labels[text], return_inverse=True)[1].astype(np.int64)
    return found


def _texts(items: Items, edges: "NDArray[np.int64]") -> int:
    """How many text numbers there can be."""
    return int(max(items.text.max(initial=-1), edges.max(initial=-1))) + 1


def _names(items: Items, history: History) -> "tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64]]":
    """(ids and names of clusters sorted, each item's own place among them, that of the cluster it was in)."""
    import numpy as np

    names, places = np.unique(np.concatenate((items.ids, history.cluster)), return_inverse=True)
    return names, places[: len(items)].astype(np.int64), places[len(items) :].astype(np.int64)


class _Surroundings:
    """The sides and clusters that have been given, by what a newcomer may share with them."""

    def __init__(self, items: Items, edges: "NDArray[np.int64]", history: History, before: "NDArray[np.int64]") -> None:
        import numpy as np

        texts = _texts(items, edges)
        # What is held out stands on no side, so it keeps nobody from one.
        old = np.flatnonzero(history.stays & (history.side != HELD))
        bits = (1 << history.side[old]).astype(np.uint8)
        own = np.zeros(texts, np.uint8)
        np.bitwise_or.at(own, items.text[old], bits)
        if items.pull is not None:
            np.bitwise_or.at(own, items.text, items.pull)
        self.ties = [self._of(tie, old, bits, items.pull) for tie in items.ties]
        clusters = np.full(texts, np.iinfo(np.int64).max)
        np.minimum.at(clusters, items.text[old], before[old])
        self.texts, self.cluster = own.copy(), clusters.copy()
        for left, right in (edges.T, edges.T[::-1]):
            np.bitwise_or.at(self.texts, left, own[right])
            np.minimum.at(self.cluster, left, clusters[right])

    @staticmethod
    def _of(
        tie: "NDArray[np.int64]",
        old: "NDArray[np.int64]",
        bits: "NDArray[np.uint8]",
        pull: "NDArray[np.uint8] | None",
    ) -> "NDArray[np.uint8]":
        """For each group, or prompt, the sides of its examples."""
        import numpy as np

        found = np.zeros(int(tie.max(initial=-1)) + 2, np.uint8)
        np.bitwise_or.at(found, tie[old], bits)
        if pull is not None:
            np.bitwise_or.at(found, tie, pull)
        # The last entry is of those that have none.
        found[-1] = 0
        return found

    def sides(self, items: Items, history: History, members: "NDArray[np.int64]") -> "NDArray[np.uint8]":
        """For each of `members` the places (bits 1, 2, 4, and 8 for HELD) of what it belongs to."""
        import numpy as np

        returns = history.returns[members]
        back = np.where(returns, 1 << np.where(returns, history.side[members], 0), 0).astype(np.uint8)
        found: NDArray[np.uint8] = self.texts[items.text[members]] | back
        for tie, sides in zip(items.ties, self.ties, strict=True):
            found |= sides[tie[members]]
        return found


def _chosen(
    items: Items,
    new: "NDArray[np.int64]",
    bound: "NDArray[np.uint8]",
    component: "NDArray[np.int64]",
    choose: Choose,
) -> "NDArray[np.int8]":
    """For each component the side of most of what its members are bound to, or a drawn one."""
    import numpy as np

    count = int(component.max(initial=-1)) + 1
    votes = np.stack([np.bincount(component[bound == 1 << side], minlength=count) for side in range(len(SIDES))], 1)
    chosen: NDArray[np.int8] = votes.argmax(axis=1).astype(np.int8)
    free: NDArray[np.bool_] = votes.max(axis=1) == 0
    inside = free[component]
    number = np.cumsum(free) - 1
    drawn = Components(component_keys(items, new, component, free), new[inside], number[component[inside]])
    chosen[free] = choose(drawn)
    return chosen


def component_keys(
    items: Items, members: "NDArray[np.int64]", component: "NDArray[np.int64]", wanted: "NDArray[np.bool_]"
) -> list[str]:
    """For each wanted component `group NAME`, the first by name, or `cluster ID`, the first."""
    import numpy as np

    by_name = sorted(range(len(items.groups)), key=items.groups.__getitem__)
    rank = np.empty(len(by_name) + 1, np.int64)
    rank[by_name] = np.arange(len(by_name))
    rank[-1] = len(by_name)
    group = least(component, rank[items.group[members]])[wanted].tolist()
    order = np.argsort(items.ids[members], kind="stable")
    first = np.empty(len(wanted), np.int64)
    # Written from the last id to the first: the first stays.
    first[component[order[::-1]]] = members[order[::-1]]
    ids: list[Any] = items.ids[first[wanted]].tolist()
    return [
        f"group {items.groups[by_name[name]]}" if name < len(by_name) else f"cluster {id.decode()}"
        for name, id in zip(group, ids, strict=True)
    ]


def least(component: "NDArray[np.int64]", values: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """For each component the least of its members' values."""
    import numpy as np

    least: NDArray[np.int64] = np.full(int(component.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, component, values)
    return least
