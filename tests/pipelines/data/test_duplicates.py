import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.duplicates import (
    MISSED,
    banding,
    connected,
    jaccard,
    near_duplicate_pairs,
    normalise,
    similarity,
)

words = st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"])
sentences = st.lists(words, min_size=1, max_size=25).map(" ".join)


@given(st.lists(sentences, max_size=25, unique=True), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
@settings(deadline=None)
def test_only_pairs_that_reach_the_threshold_are_found_each_with_its_similarity(texts, threshold):
    for left, right, value in near_duplicate_pairs(texts, threshold):
        assert left < right
        assert value == similarity(texts[left], texts[right]) >= threshold


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


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.85])
def test_the_pairs_are_those_of_brute_force_but_for_one_in_a_thousand(threshold):
    texts = varied_texts(400, seed=5)
    expected = {
        (i, j) for i, j in itertools.combinations(range(len(texts)), 2) if similarity(texts[i], texts[j]) >= threshold
    }
    found = {(left, right) for left, right, _ in near_duplicate_pairs(texts, threshold)}
    assert len(expected) > 30
    assert found <= expected
    assert len(expected - found) <= max(1, MISSED * len(expected))


def test_a_short_text_meets_a_longer_one_by_its_characters():
    short = "please restart the router and wait for two minutes"
    longer = f"{short} ok"
    assert len(short.split()) < 10 <= len(longer.split())
    pairs = near_duplicate_pairs(
        [short, longer, "something else entirely, of many more words than the others have"], 0.7
    )
    assert [pair[:2] for pair in pairs] == [(0, 1)]


def test_two_short_texts_of_one_word_changed_are_near_and_two_of_one_word_shared_are_not():
    texts = ["how do i reset the printer", "how do i reset the printers", "how old is the moon"]
    assert [pair[:2] for pair in near_duplicate_pairs(texts, 0.7)] == [(0, 1)]


def test_no_texts_have_no_pairs():
    assert near_duplicate_pairs([], 0.7) == []
    assert near_duplicate_pairs(["only one"], 0.7) == []


def test_case_punctuation_and_spacing_make_no_other_text_but_punctuation_alone_does():
    assert normalise("Hello,  World!") == normalise("hello world") == "hello world"
    assert normalise("\uff28ello") == "hello"
    assert normalise("?!") != normalise("...")


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_connected_nodes_share_a_label_and_others_do_not(edges):
    labels = connected(12, edges)
    reach = {node: {node} for node in range(12)}
    for _ in range(12):
        for left, right in edges:
            both = reach[left] | reach[right]
            for node in both:
                reach[node] |= both
    for node in range(12):
        assert labels[node] == min(reach[node])


@given(st.floats(0.05, 1.0))
def test_banding_misses_no_more_than_it_says_where_it_can(threshold):
    bands, rows = banding(threshold)
    assert bands * rows <= 128
    if rows > 1:
        assert (1 - threshold**rows) ** bands <= MISSED
    assert banding(0.7) == (32, 4)


@given(st.sets(words, min_size=1), st.sets(words, min_size=1))
def test_jaccard_is_shared_over_all(left, right):
    assert jaccard(left, right) == len(left & right) / len(left | right)


def test_two_thousand_texts_take_less_than_two_seconds():
    texts = varied_texts(2000, seed=6)
    started = time.process_time()
    near_duplicate_pairs(texts, 0.7)
    assert time.process_time() - started < 2


def test_thousands_of_texts_from_one_template_are_one_cluster_in_no_time():
    texts = [f"please tell me the status of my order number {i * 7919 % 100_000}" for i in range(3000)]
    started = time.process_time()
    pairs = near_duplicate_pairs(texts, 0.7)
    assert time.process_time() - started < 2
    assert len(set(connected(len(texts), [pair[:2] for pair in pairs]))) == 1
    assert len(pairs) < 100 * len(texts)
