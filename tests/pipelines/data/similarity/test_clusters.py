import hashlib
import itertools
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.corpus import CorpusWriter, Note
from pipelines.data.similarity.candidates import DENSE, Buckets, bucketed
from pipelines.data.similarity.clusters import find_clusters
from pipelines.data.similarity.duplicates import MISSED, character_shingles, is_short, jaccard, normalise, word_shingles
from pipelines.data.similarity.edges import components
from pipelines.data.similarity.resemblance import ShingleSets
from pipelines.data.similarity.sketches import sketch_columns, word_hashes
from pipelines.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture
def corpus_of(tmp_path):
    """`corpus_of(texts, threshold) -> Corpus` of one-answer conversations without prompts' words."""

    def make(texts, threshold=0.7):
        normals = [normalise(text) for text in texts]
        messages = [json.dumps([{"role": "assistant", "content": text}]) for text in texts]
        return written(tmp_path / f"corpus-{threshold}-{len(texts)}", messages, normals, threshold)

    return make


def written(folder, messages, normals, threshold):
    keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in normals]
    columns = {"messages": pa.array(messages, pa.string()), "text_key": pa.array(keys, pa.binary(16))}
    with CorpusWriter(folder) as writer:
        writer.write(pa.table(columns | sketch_columns(normals, threshold)))
        writer.write_bad(pa.table({"file": pa.array([], pa.string())}))
        return writer.finish(Note("", "one process", 0))


def varied_texts(count, seed):
    """Texts of 4 to 60 words, each third one a copy of another with a few words changed."""
    chance = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(400)]
    texts = []
    for number in range(count):
        if number % 3 == 2:
            copy = chance.choice(texts).split()
            for _ in range(chance.choice([1, 1, 2])):
                # A word changed at the end costs one shingle, one in the middle five.
                copy[chance.choice([-1, chance.randrange(len(copy))])] = chance.choice(vocabulary)
            texts.append(" ".join(copy))
        else:
            texts.append(" ".join(chance.choices(vocabulary, k=chance.randint(4, 60))))
    return sorted(set(texts))


def edges(found):
    return list(zip(found.left.tolist(), found.right.tolist(), strict=True))


def every_pair(texts, threshold):
    """The pairs at or above the threshold, each compared, with their similarities."""
    words, characters = [word_shingles(text) for text in texts], [character_shingles(text) for text in texts]
    short = [is_short(text) for text in texts]
    pairs = {}
    for i, j in itertools.combinations(range(len(texts)), 2):
        sets = characters if short[i] or short[j] else words
        if (value := jaccard(sets[i], sets[j])) >= threshold:
            pairs[i, j] = value
    return pairs


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.85])
def test_the_edges_are_the_pairs_of_brute_force_but_for_one_in_a_thousand(corpus_of, threshold):
    texts = varied_texts(300, seed=5)
    found = find_clusters(corpus_of(texts, threshold), threshold, "", QUIET)
    expected = every_pair(texts, threshold)
    assert len(expected) > 30
    assert set(edges(found)) <= set(expected)
    assert len(set(expected) - set(edges(found))) <= max(1, MISSED * len(expected))
    assert edges(found) == sorted(edges(found))
    assert found.similarity.tolist() == pytest.approx([expected[pair] for pair in edges(found)])


def test_rows_of_one_text_are_known_by_the_first_and_share_its_cluster(corpus_of):
    long = "please restart the router and then wait for two whole minutes before you call us again"
    found = find_clusters(corpus_of([long, "Short!", long.upper() + "!", f"{long} ok", "short"]), 0.7, "", QUIET)
    assert found.text.tolist() == [0, 1, 0, 3, 1]
    assert found.cluster.tolist() == [0, 1, 0, 0, 1]
    assert edges(found) == [(0, 3)]
    assert found.kind.tolist() == ["near"]


def test_a_short_text_meets_a_longer_one_by_its_characters(corpus_of):
    short = "please restart the router and wait for two minutes"
    texts = [short, f"{short} ok", "something else entirely, of many more words than the others have"]
    assert edges(find_clusters(corpus_of(texts), 0.7, "", QUIET)) == [(0, 1)]


def test_two_short_texts_of_one_word_changed_are_near_and_two_of_one_word_shared_are_not(corpus_of):
    texts = ["how do i reset the printer", "how do i reset the printers", "how old is the moon"]
    assert edges(find_clusters(corpus_of(texts), 0.7, "", QUIET)) == [(0, 1)]


def test_two_longer_texts_whose_characters_alone_are_near_are_not(corpus_of):
    texts = ["aa bb cc dd ee ff gg hh ii jj", "aa bb cc dd ee xx gg hh ii jj", "aa bb cc dd ee ff gg hh ii"]
    assert jaccard(word_shingles(texts[0]), word_shingles(texts[1])) < 0.3
    assert jaccard(character_shingles(texts[0]), character_shingles(texts[1])) > 0.5
    assert edges(find_clusters(corpus_of(texts, 0.3), 0.3, "", QUIET)) == [(0, 2), (1, 2)]


def test_the_recipes_instruction_makes_no_texts_alike(corpus_of, tmp_path):
    instruction = "Write the docstring of this function, in one sentence, and nothing else at all, please."
    texts = [f"def f{number}" for number in range(3)]
    turns = [
        [{"role": "user", "content": f"{instruction}\n\n{text}"}, {"role": "assistant", "content": answer}]
        for text, answer in zip(texts, ["zip", "unrelated words", "moon and sun"], strict=True)
    ]
    normals = [normalise(f"{text}\n{each[1]['content']}") for text, each in zip(texts, turns, strict=True)]
    columns = {
        "messages": pa.array(map(json.dumps, turns)),
        "text_key": pa.array(
            [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in normals], pa.binary(16)
        ),
    }
    with CorpusWriter(tmp_path / "instructed") as writer:
        writer.write(pa.table(columns | sketch_columns(normals, 0.7)))
        writer.write_bad(pa.table({"file": pa.array([], pa.string())}))
        corpus = writer.finish(Note("", "one process", 0))
    assert edges(find_clusters(corpus, 0.7, instruction, QUIET)) == []


@pytest.mark.parametrize("texts", [[], ["only one"]])
def test_no_texts_have_no_edges(corpus_of, texts):
    found = find_clusters(corpus_of(texts), 0.7, "", QUIET)
    assert edges(found) == []
    assert found.cluster.tolist() == found.text.tolist() == list(range(len(texts)))


def test_thousands_of_texts_from_one_template_are_one_cluster_at_little_work(corpus_of):
    texts = [f"please tell me the status of my order number {i * 7919 % 100_000}" for i in range(3000)]
    corpus = corpus_of(texts)
    found = find_clusters(corpus, 0.7, "", QUIET)
    assert set(found.cluster.tolist()) == {0}
    assert len(found.left) < 100 * len(texts)


@given(st.lists(st.integers(0, 9), max_size=40))
@settings(deadline=None)
def test_buckets_hold_the_rows_of_a_key_that_several_have(keys):
    found = bucketed(np.array(keys, np.uint64), np.arange(len(keys)) * 3)
    rows = [part.tolist() for part in np.split(found.rows, found.offsets[1:-1])] if len(found.rows) else []
    assert sorted(rows) == sorted(
        [3 * i for i, key in enumerate(keys) if key == value] for value in set(keys) if keys.count(value) > 1
    )
    pairs = [pair for left, right in found.pairs() for pair in zip(left.tolist(), right.tolist(), strict=True)]
    assert sorted(pairs) == sorted(pair for row in rows for pair in itertools.combinations(row, 2))


def test_a_bucket_of_more_than_dense_rows_is_not_paired():
    sizes = [DENSE, DENSE + 1, 2]
    buckets = Buckets(np.arange(sum(sizes)), np.concatenate(([0], np.cumsum(sizes))))
    assert sum(len(left) for left, _ in buckets.pairs()) == DENSE * (DENSE - 1) // 2 + 1
    rows, bucket = buckets.dense()
    assert rows.tolist() == list(range(DENSE, 2 * DENSE + 1))
    assert set(bucket.tolist()) == {1}


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
@settings(deadline=None)
def test_connected_nodes_share_their_smallest_and_others_do_not(pairs):
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    reach = {node: {node} for node in range(12)}
    for _ in range(12):
        for one, other in pairs:
            both = reach[one] | reach[other]
            for node in both:
                reach[node] |= both
    assert components(12, left, right).tolist() == [min(reach[node]) for node in range(12)]


def test_sets_are_compared_in_chunks_as_they_are_at_once(monkeypatch):
    texts = varied_texts(60, seed=8)
    sets = ShingleSets(100)
    sets.add(np.arange(0, 40), word_hashes(texts[:40]))
    sets.add(np.arange(60, 60 + len(texts) - 40), word_hashes(texts[40:]))
    left, right = (side.ravel() for side in np.meshgrid(np.arange(40), np.arange(60, 60 + len(texts) - 40)))
    whole = sets.similarities(left, right)
    monkeypatch.setattr("pipelines.data.similarity.resemblance.CHUNK", 70)
    assert sets.similarities(left, right).tolist() == whole.tolist()
    near, similar = sets.near(left, right, 0.5)
    assert near.tolist() == (whole >= 0.5).tolist()
    assert similar[near].tolist() == whole[near].tolist()


@pytest.mark.cluster
def test_ray_finds_the_same_pairs_as_this_process(ray_cluster, corpus_of, monkeypatch):
    from pipelines.data.similarity import candidates

    # A part is a process that gathers it and one that looks through it.
    monkeypatch.setattr(candidates, "PARTS", 3)
    texts = varied_texts(1500, seed=9) + [f"please tell me the status of my order number {i}" for i in range(300)]
    corpus = corpus_of(texts)
    here = find_clusters(corpus, 0.7, "", QUIET, shuffle="here")
    there = find_clusters(corpus, 0.7, "", QUIET, shuffle="ray")
    assert edges(there) == edges(here)
    assert there.cluster.tolist() == here.cluster.tolist()
