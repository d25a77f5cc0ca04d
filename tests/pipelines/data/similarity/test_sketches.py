import itertools
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.similarity.duplicates import (
    banding,
    character_shingles,
    is_short,
    jaccard,
    similarity,
    word_shingles,
)
from pipelines.data.similarity.sketches import (
    Ragged,
    band_names,
    character_hashes,
    signatures,
    sketch_columns,
    sorted_once,
    word_hashes,
)

words = st.sampled_from(["a", "bb", "cat", "dogs", "eagle", "fox", "größe", "日本語", "\U0001f600", "no"])
texts = st.lists(words, max_size=25).map(" ".join)


def shared(sets, left, right):
    one, other = (set(sets.values[sets.offsets[i] : sets.offsets[i + 1]].tolist()) for i in (left, right))
    return len(one & other) / len(one | other)


@given(st.lists(texts, min_size=2, max_size=6))
@settings(deadline=None)
def test_over_hashes_the_similarity_is_that_of_the_shingles_themselves(normals):
    for hashes, shingles in ((word_hashes, word_shingles), (character_hashes, character_shingles)):
        sets = hashes(normals).distinct()
        assert sets.sizes.tolist() == [len(shingles(text)) for text in normals]
        assert shared(sets, 0, 1) == jaccard(shingles(normals[0]), shingles(normals[1]))


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=6), max_size=8), st.data())
def test_ragged_rows_are_taken_and_made_distinct_as_lists_are(rows, data):
    sizes = [len(row) for row in rows]
    values = np.array([value for row in rows for value in row], np.uint64)
    ragged = Ragged(values, np.concatenate(([0], np.cumsum(sizes))).astype(np.int64))
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    taken = ragged.take(np.array(wanted, np.int64))
    assert taken.sizes.tolist() == [sizes[number] for number in wanted]
    assert taken.values.tolist() == [value for number in wanted for value in rows[number]]
    distinct = ragged.distinct()
    assert distinct.values.tolist() == [value for row in rows for value in sorted(set(row))]
    assert sorted_once(values).tolist() == sorted(set(values.tolist()))


@given(st.lists(texts, min_size=12, max_size=12), st.sampled_from([0.5, 0.7, 0.9]))
@settings(deadline=None, max_examples=25)
def test_a_longer_text_that_is_near_a_short_one_is_in_character_space(normals, threshold):
    columns = sketch_columns(normals, threshold)
    by_words = columns["band_w00"].is_valid().to_pylist()
    by_characters = columns["band_c00"].is_valid().to_pylist()
    assert by_words == [not is_short(text) for text in normals]
    for left, right in itertools.combinations(range(len(normals)), 2):
        if by_words[left] != by_words[right] and similarity(normals[left], normals[right]) >= threshold:
            assert by_characters[left] and by_characters[right]


def test_few_of_the_longer_texts_are_in_character_space():
    chance = np.random.default_rng(3)
    vocabulary = ["".join(chance.choice(list("abcdefghijklmnopqrstuvwxyz"), chance.integers(2, 9))) for _ in range(500)]
    normals = [" ".join(chance.choice(vocabulary, 40)) for _ in range(200)]
    assert sketch_columns(normals, 0.7)["band_c00"].null_count > 190


def test_equal_texts_agree_in_every_band_and_strangers_in_none():
    same = "one two three four five six seven eight nine ten eleven twelve"
    other = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"
    columns = sketch_columns([same, other, same], 0.7)
    assert list(columns) == band_names("w", 0.7) + band_names("c", 0.7)
    assert len(band_names("w", 0.7)) == banding(0.7)[0]
    for name in band_names("w", 0.7):
        keys = columns[name].to_pylist()
        assert keys[0] == keys[2] != keys[1]


def test_a_text_has_one_sketch_whatever_stands_beside_it():
    normals = ["one two three four five six seven eight nine ten eleven", "short one", "", "日本語 " * 20 + "x"]
    together = sketch_columns(normals, 0.5)
    for place, text in enumerate(normals):
        alone = sketch_columns([text], 0.5)
        assert all(alone[name][0].as_py() == together[name][place].as_py() for name in together)


def test_another_process_makes_the_same_sketch():
    # Python's own hash differs from process to process.
    code = "from pipelines.data.similarity.sketches import sketch_columns as s; print(s(['a b c'], 0.7)['band_c00'][0])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == sketch_columns(["a b c"], 0.7)["band_c00"][0].as_py()


def test_signatures_estimate_the_similarity():
    left = " ".join(f"w{number}" for number in range(300))
    right = " ".join(f"w{number}" for number in range(60, 360))
    both = signatures(word_hashes([left, right]))
    expected = jaccard(word_shingles(left), word_shingles(right))
    assert abs((both[0] == both[1]).mean() - expected) < 0.15


def test_no_texts_have_empty_columns():
    columns = sketch_columns([], 0.7)
    assert len(columns) == 2 * banding(0.7)[0]
    assert all(len(column) == 0 for column in columns.values())
