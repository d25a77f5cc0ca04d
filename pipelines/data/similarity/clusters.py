"""Near-duplicate clusters of a corpus: candidates from the sketches' bands, exact similarity, connected components."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.data.corpus import Corpus
from pipelines.data.similarity.candidates import Buckets, BucketsByRay, BucketsHere
from pipelines.data.similarity.edges import Edges, components, joined, once
from pipelines.data.similarity.resemblance import ShingleSets
from pipelines.data.similarity.sketches import band_names, character_hashes, sorted_once, word_hashes
from pipelines.progress import Progress
from pipelines.recipe import BaseModelChoice
from pipelines.recipe_data import Semantic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.similarity.semantic import Vectors

RAY_ROWS = 5_000_000
"""Rows from which `auto` lets Ray shuffle the keys."""
WAITING_PAIRS = 8_000_000
"""Candidate pairs that wait until they are compared: 64 MB."""

Shuffle = Literal["auto", "here", "ray"]


@dataclass(frozen=True)
class Clusters:
    """Which rows are one text, which texts are near each other, and what connects them."""

    text: "NDArray[np.int64]"
    """For each row the smallest row with the same normalised text."""
    cluster: "NDArray[np.int64]"
    """For each row the smallest row of its cluster."""
    left: "NDArray[np.int64]"
    """The edges' lower rows, ascending; each stands for its text."""
    right: "NDArray[np.int64]"
    """The edges' higher rows."""
    similarity: "NDArray[np.float32]"
    """Of each edge: Jaccard of shingles, or cosine."""
    kind: "NDArray[np.str_]"
    """Of each edge: near or semantic."""
    vectors: "Vectors | None" = None
    """Of the rows that stand for their texts, ascending, where they were looked through by meaning."""


def find_clusters(
    corpus: Corpus,
    threshold: float,
    instruction: str,
    progress: Progress,
    *,
    shuffle: Shuffle = "auto",
    semantic: Semantic | None = None,
    base: BaseModelChoice | None = None,
) -> Clusters:
    """The clusters of a corpus that was sketched for `threshold`.

    Every pair of texts at or above the threshold is an edge, but for `duplicates.MISSED` of those just at it, and of
    more than `candidates.DENSE` like texts enough edges to connect them. `semantic` adds pairs by meaning, with the
    hidden states of its model or of `base`.
    """
    import numpy as np

    text = distinct_texts(corpus)
    stands = text == np.arange(len(text))
    parts = [near_edges(corpus, stands, threshold, instruction, progress, shuffle)]
    kinds = [np.full(len(parts[0].left), "near", "<U8")]
    vectors: Vectors | None = None
    if semantic:
        from pipelines.data.similarity.semantic import semantic_edges

        meant, vectors = semantic_edges(corpus, np.flatnonzero(stands), semantic, base, instruction, progress)
        parts.append(meant)
        kinds.append(np.full(len(meant.left), "semantic", "<U8"))
    edges, kind = joined(parts), np.concatenate(kinds)
    order = np.lexsort((kind, edges.right, edges.left))
    return Clusters(
        text=text,
        cluster=components(len(text), edges.left, edges.right)[text],
        left=edges.left[order],
        right=edges.right[order],
        similarity=edges.similarity[order].astype(np.float32),
        kind=kind[order],
        vectors=vectors,
    )


def distinct_texts(corpus: Corpus) -> "NDArray[np.int64]":
    """For each row the smallest row whose normalised text is the same (by the 128 bits of its key)."""
    import numpy as np

    column = corpus.column("text_key").combine_chunks()
    size = len(column)
    if not size:
        return np.zeros(0, np.int64)
    keys = np.frombuffer(column.buffers()[1], np.uint64, 2 * size, 16 * column.offset).reshape(size, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    first = np.ones(size, bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    # The sort keeps the order of equal keys: the first of a run is the smallest.
    text = np.empty(size, np.int64)
    text[order] = order[first][np.cumsum(first) - 1]
    return text


def near_edges(
    corpus: Corpus,
    among: "NDArray[np.bool_]",
    threshold: float,
    instruction: str,
    progress: Progress,
    shuffle: Shuffle = "auto",
) -> Edges:
    """The near pairs of the rows in `among`, ascending: of words, and of characters where either text is short."""
    import numpy as np

    by_ray = shuffle == "ray" or (shuffle == "auto" and len(corpus) > RAY_ROWS)
    is_long = np.asarray(corpus.column(band_names("w", threshold)[0]).is_valid())
    names = {space: band_names(space, threshold) for space in "wc"}
    with progress.bar("near-duplicates (steps)", total=6) as bar:
        step = 0

        def advance(note: str) -> None:
            nonlocal step
            step += 1
            bar.update(step, note=note)

        source = BucketsByRay if by_ray else BucketsHere
        buckets = {space: source(corpus, names[space], among) for space in "wc"}
        wanted = {space: _meeting(len(corpus), buckets[space]) for space in "wc"}
        advance(f"{int((wanted['w'] | wanted['c']).sum()):,} texts share a band with another")
        sets = _shingle_sets(corpus, wanted, instruction)
        advance("shingles kept")
        found = []
        for space in "wc":
            # Two longer texts are compared by their words.
            passed_over = is_long if space == "c" else np.zeros(len(corpus), bool)
            found += list(_confirmed(buckets[space], sets[space], threshold, passed_over))
            advance(f"{'words' if space == 'w' else 'characters'} compared")
    return once(joined(found))


def _meeting(size: int, buckets: Iterable[Buckets]) -> "NDArray[np.bool_]":
    """Which rows are in some bucket."""
    import numpy as np

    met = np.zeros(size, bool)
    for some in buckets:
        met[some.rows] = True
    return met


def _shingle_sets(corpus: Corpus, wanted: "dict[str, NDArray[np.bool_]]", instruction: str) -> dict[str, ShingleSets]:
    """The sets of the wanted rows of each space, by one pass over the texts."""
    import numpy as np

    sets = {space: ShingleSets(len(corpus)) for space in wanted}
    hashes = {"w": word_hashes, "c": character_hashes}
    start = 0
    for batch in corpus.batches(["messages"]):
        here = {space: np.flatnonzero(flags[start : start + len(batch)]) for space, flags in wanted.items()}
        rows = sorted_once(np.concatenate(list(here.values())))
        normals = dict(
            zip(rows.tolist(), normal_texts(batch["messages"].take(rows).to_pylist(), instruction), strict=True)
        )
        for space, own in here.items():
            if len(own):
                sets[space].add(start + own, hashes[space]([normals[row] for row in own.tolist()]))
        start += len(batch)
    return sets


def normal_texts(messages: list[str], instruction: str) -> list[str]:
    """The normalised texts of conversations, as the sketches saw them."""
    import json

    from pipelines.data.example import text_of
    from pipelines.data.similarity.duplicates import normalise

    return [normalise(text_of(json.loads(text), instruction)) for text in messages]


def _confirmed(
    buckets: Iterable[Buckets], sets: ShingleSets, threshold: float, passed_over: "NDArray[np.bool_]"
) -> Iterator[Edges]:
    """The near pairs among the buckets' rows, some of them repeatedly; without those both of which are passed over."""
    import numpy as np

    waiting: list[NDArray[np.uint64]] = []

    def compared() -> Edges:
        packed = sorted_once(np.concatenate([np.zeros(0, np.uint64), *waiting]))
        waiting.clear()
        left, right = (packed >> np.uint64(32)).astype(np.int64), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
        near, similar = sets.near(left, right, threshold)
        return Edges(left[near], right[near], similar[near])

    for some in buckets:
        for left, right in some.pairs():
            kept = ~(passed_over[left] & passed_over[right])
            waiting.append(left[kept].astype(np.uint64) << np.uint64(32) | right[kept].astype(np.uint64))
            if sum(map(len, waiting)) > WAITING_PAIRS:
                yield compared()
        for edges in _led(*some.dense(), sets, threshold):
            kept = ~(passed_over[edges.left] & passed_over[edges.right])
            yield Edges(edges.left[kept], edges.right[kept], edges.similarity[kept])
    yield compared()


def _led(
    rows: "NDArray[np.int64]", bucket: "NDArray[np.int64]", sets: ShingleSets, threshold: float
) -> Iterator[Edges]:
    """In dense buckets the pairs of each row with the first leader that it is near.

    A row that is near to no leader is the next one, up to DENSE of them.
    """
    import numpy as np

    from pipelines.data.similarity.candidates import DENSE

    for _ in range(DENSE):
        if not len(rows):
            return
        first = np.ones(len(rows), bool)
        first[1:] = bucket[1:] != bucket[:-1]
        leader = rows[first][np.cumsum(first) - 1][~first]
        rows, bucket = rows[~first], bucket[~first]
        near, similar = sets.near(leader, rows, threshold)
        yield Edges(leader[near], rows[near], similar[near])
        rows, bucket = rows[~near], bucket[~near]
