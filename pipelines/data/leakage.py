"""What stands on two sides of a split: found without the sketches and the clusters that the split was made by.

Pure. Near-duplicates between sides are found exactly, by prefix filtering: two sets whose Jaccard similarity
is at least t share an element among the rarest |x| - ceil(t |x|) + 1 of each (Chaudhuri, Ganti and Kaushik,
"A primitive operator for similarity joins", 2006; Bayardo, Ma and Srikant, "Scaling up all pairs similarity
search", 2007).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.data.duplicates import character_shingles, is_short, jaccard, normalise, word_shingles


@dataclass(frozen=True, slots=True)
class Placed:
    """An example as it stands in a split."""

    id: str
    text: str
    """Its spoken text, as it is."""
    side: str
    group: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """Two examples on two sides that belong together."""

    kind: str
    """id, text, near, group or cluster."""
    left: str
    right: str
    similarity: float
    """1 where the kind is no similarity."""


def find_leaks(placed: Sequence[Placed], threshold: float) -> list[Leak]:
    """A leak for each id, text, group and cluster that stands on two sides, and for each near-duplicate pair."""
    leaks: list[Leak] = []
    texts = [normalise(item.text) for item in placed]
    keys: tuple[tuple[str, Callable[[int], str | None]], ...] = (
        ("id", lambda i: placed[i].id),
        ("text", lambda i: texts[i]),
        ("group", lambda i: placed[i].group),
        ("cluster", lambda i: placed[i].cluster),
    )
    for kind, key_of in keys:
        leaks += _shared(kind, placed, key_of)
    return leaks + list(_near(placed, texts, threshold))


def _shared(kind: str, placed: Sequence[Placed], key_of: Callable[[int], str | None]) -> Iterator[Leak]:
    """One leak for each further side on which a key stands."""
    sides: dict[str, dict[str, int]] = defaultdict(dict)
    for number, item in enumerate(placed):
        key = key_of(number)
        if not key:
            continue
        here = sides[key]
        if item.side not in here:
            if here:
                first = next(iter(here.values()))
                yield Leak(kind, placed[first].id, item.id, 1.0)
            here[item.side] = number


def _near(placed: Sequence[Placed], texts: Sequence[str], threshold: float) -> Iterator[Leak]:
    """The pairs of different texts on two sides whose similarity reaches the threshold."""
    short = [is_short(text) for text in texts]
    words = {i: word_shingles(text) for i, text in enumerate(texts) if not short[i]}
    yield from _joined(placed, texts, words, threshold, lambda i, j: True)
    if any(short):
        characters = {i: character_shingles(text) for i, text in enumerate(texts) if short[i]}
        largest = max(len(found) for found in characters.values()) / threshold
        for i in words:
            if len(found := character_shingles(texts[i])) <= largest:
                characters[i] = found
        yield from _joined(placed, texts, characters, threshold, lambda i, j: short[i] or short[j])


def _joined(
    placed: Sequence[Placed],
    texts: Sequence[str],
    sets: Mapping[int, set[str]],
    threshold: float,
    wanted: Callable[[int, int], bool],
) -> Iterator[Leak]:
    counts = Counter(element for found in sets.values() for element in found)
    index: dict[str, list[int]] = defaultdict(list)
    for number in sorted(sets, key=lambda i: (len(sets[i]), i)):
        found = sets[number]
        # A hair below the bound, so that rounding loses no pair that is exactly at the threshold.
        length = len(found) - math.ceil(threshold * len(found) - 1e-9) + 1
        prefix = sorted(found, key=lambda element: (counts[element], element))[:length]
        met = {other for element in prefix for other in index[element]}
        for other in sorted(met):
            if placed[other].side == placed[number].side or texts[other] == texts[number] or not wanted(other, number):
                continue
            value = jaccard(found, sets[other])
            if value >= threshold:
                yield Leak("near", placed[other].id, placed[number].id, value)
        for element in prefix:
            index[element].append(number)
