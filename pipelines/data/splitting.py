"""Assigning examples to sides: what belongs together stays together, and nothing old ever moves.

Pure. Two examples belong together when they have the same text, when their texts are near-duplicates, or
when they are of one group. What belongs together, directly or through others, goes to one side, drawn by a
seeded hash. An example that has a side keeps it; newcomers follow those that they belong to; a newcomer
that would join two sides enters none (HELD_OUT).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.data.duplicates import connected

SIDES = ("train", "validation", "test")
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Item:
    """What the assignment needs to know of an example."""

    id: str
    text: str
    """Key of its normalised text."""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an example stands."""

    cluster: str
    """Id of its near-duplicate cluster: given once, never computed again."""
    side: str
    """train, validation, test or held_out."""


@dataclass(frozen=True)
class History:
    """The places that were given before."""

    present: Mapping[str, Place] = field(default_factory=dict)
    """Id -> place of what the last table holds: these never move."""
    gone: Mapping[str, Place] = field(default_factory=dict)
    """Id -> place of what earlier tables held: one that comes back returns to its side, or enters none
    where somebody who belongs to it was put elsewhere meanwhile."""


def assign(
    items: Sequence[Item],
    neighbours: Iterable[tuple[str, str]],
    shares: Mapping[str, float],
    seed: int,
    history: History | None = None,
) -> dict[str, Place]:
    """The place of every item, by id; ids are distinct. `neighbours`: pairs of near-duplicate text keys."""
    history = history or History()
    near: dict[str, set[str]] = defaultdict(set)
    for left, right in neighbours:
        near[left].add(right)
        near[right].add(left)
    old = [item for item in items if item.id in history.present]
    newcomers = [item for item in items if item.id not in history.present]
    surroundings = _Surroundings(near, history)
    for item in old:
        surroundings.learn(item, history.present[item.id])
    places = {item.id: history.present[item.id] for item in old}
    for members in _components(newcomers, near, by_group=True):
        places |= _place(members, surroundings, shares, seed)
    return places


def draw(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The side of `key`: a seeded hash in [0, 1) against the shares, so that it depends on nothing else."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    point, reached = int.from_bytes(digest[:7]) / 2**56, 0.0
    for side in SIDES:
        reached += shares[side]
        if point < reached:
            return side
    return SIDES[-1]


class _Surroundings:
    """The sides and clusters that have been given, by what a newcomer may share with them."""

    def __init__(self, near: Mapping[str, set[str]], history: History) -> None:
        self.near, self.history = near, history
        self._text_sides: dict[str, set[str]] = defaultdict(set)
        self._text_clusters: dict[str, set[str]] = defaultdict(set)
        self._group_sides: dict[str, set[str]] = defaultdict(set)

    def learn(self, item: Item, place: Place) -> None:
        """What is held out stands on no side, so it keeps nobody from one."""
        if place.side == HELD_OUT:
            return
        self._text_sides[item.text].add(place.side)
        self._text_clusters[item.text].add(place.cluster)
        if item.group:
            self._group_sides[item.group].add(place.side)

    def sides(self, item: Item) -> set[str]:
        """The sides on which something stands that `item` belongs to."""
        sides = set(self._group_sides[item.group]) if item.group else set()
        for text in (item.text, *self.near.get(item.text, ())):
            sides |= self._text_sides.get(text, set())
        if item.id in self.history.gone:
            sides.add(self.history.gone[item.id].side)
        return sides

    def clusters(self, item: Item) -> set[str]:
        """The clusters that have `item`'s text or one near it."""
        texts = (item.text, *self.near.get(item.text, ()))
        return set().union(*(self._text_clusters.get(text, set()) for text in texts))


def _components(items: Sequence[Item], near: Mapping[str, set[str]], *, by_group: bool) -> list[list[Item]]:
    """The items in the sets that belong together, in an order that does not depend on theirs."""
    first_of: dict[str, int] = {}
    edges = []
    for number, item in enumerate(items):
        keys = [f"text {item.text}"] + ([f"group {item.group}"] if by_group and item.group else [])
        edges += [(first_of.setdefault(key, number), number) for key in keys]
    for number, item in enumerate(items):
        others = (first_of.get(f"text {text}") for text in near.get(item.text, ()))
        edges += [(number, other) for other in others if other is not None]
    sets: dict[int, list[Item]] = defaultdict(list)
    for item, label in zip(items, connected(len(items), edges), strict=True):
        sets[label].append(item)
    return sorted((sorted(members, key=lambda item: item.id) for members in sets.values()), key=lambda m: m[0].id)


def _place(
    members: list[Item], surroundings: _Surroundings, shares: Mapping[str, float], seed: int
) -> dict[str, Place]:
    """Places for newcomers that belong together: all on one side, but for those that belong elsewhere too."""
    sides = {item.id: surroundings.sides(item) for item in members}
    votes = Counter(side for found in sides.values() if len(found) == 1 for side in found if side != HELD_OUT)
    if votes:
        chosen = min(votes, key=lambda side: (-votes[side], SIDES.index(side)))
    else:
        groups = [item.group for item in members if item.group]
        chosen = draw(f"group {min(groups)}" if groups else f"cluster {members[0].id}", shares, seed)
    stay = [item for item in members if sides[item.id] <= {chosen}]
    # A cluster of its own: nobody shall follow what is held out.
    places = {item.id: Place(item.id, HELD_OUT) for item in members if not sides[item.id] <= {chosen}}
    for cluster in _components(stay, surroundings.near, by_group=False):
        met = set().union(*(surroundings.clusters(item) for item in cluster))
        name = min(met) if met else cluster[0].id
        for item in cluster:
            before = surroundings.history.gone.get(item.id)
            places[item.id] = Place(before.cluster if before else name, chosen)
    return places
