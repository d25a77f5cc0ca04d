import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.leaks import containment
from pipelines.data.leaks.leakage import find_leaks
from pipelines.data.similarity.duplicates import normalise
from tests.pipelines.data.leaks.test_leakage import SIDES, pairs, placed


def sequences(text):
    """Every thirteen words in a row."""
    words = normalise(text).split()
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}


def words(start, count):
    return " ".join(f"w{n}" for n in range(start, start + count))


stretch = st.tuples(st.integers(0, 60), st.integers(1, 40)).map(lambda each: words(*each))
texts = st.lists(stretch, min_size=1, max_size=3).map(" and ".join)


@given(st.lists(st.tuples(texts, st.sampled_from(SIDES)), max_size=12), st.sampled_from([0.1, 0.5, 0.8, 1.0]))
@settings(deadline=None, max_examples=50)
def test_the_contained_pairs_are_those_of_brute_force(rows, share):
    found = placed([(str(n), text, side) for n, (text, side) in enumerate(rows)])
    leaks = find_leaks(found, 1.0, share)
    sets = [sequences(text) for text, _ in rows]
    expected = {
        frozenset((rows[i], rows[j]))
        for i in range(len(rows))
        for j in range(len(rows))
        if rows[i][1] != rows[j][1]
        and normalise(rows[i][0]) != normalise(rows[j][0])
        and sets[i]
        and len(sets[i] & sets[j]) / len(sets[i]) >= share
    }
    assert {frozenset(rows[int(id)] for id in pair) for pair in pairs(leaks, found, "containment")} == expected


def test_a_text_of_twelve_words_is_in_none():
    rows = placed([("a", words(0, 12), "train"), ("b", words(0, 40), "test")])
    assert "containment" not in find_leaks(rows, 0.9, 0.1).counts
    rows = placed([("a", words(0, 13), "train"), ("b", words(0, 40), "test")])
    leaks = find_leaks(rows, 0.9, 1.0)
    assert leaks.counts == {"containment": 1}
    assert (leaks.left.tolist(), leaks.right.tolist(), leaks.similarity.tolist()) == ([0], [1], [1.0])


def test_sequences_of_very_many_texts_are_boilerplate_and_count_for_nothing(monkeypatch):
    monkeypatch.setattr(containment, "BOILERPLATE", 5)
    licence = words(0, 30)
    rows = [(str(n), f"text{n} {licence}", SIDES[n % 2]) for n in range(10)]
    own = words(100, 20)
    rows += [("part", f"{licence} {own}", "train"), ("whole", f"before it {own} behind it", "test")]
    found = placed(rows)
    leaks = find_leaks(found, 1.0, 0.3)
    # Twelve sequences reach from the licence into what is the text's own.
    assert pairs(leaks, found, "containment") == {frozenset(("part", "whole"))}
    assert leaks.boilerplate == 18


def test_rows_of_one_side_are_looked_at_too_where_each_number_is_a_side_of_its_own():
    rows = placed(
        [(id, text, "train") for id, text in (("a", words(0, 40)), ("b", words(5, 20)), ("c", words(10, 20)))],
        benchmarks=[("quiz:1", words(5, 20))],
    )
    found = find_leaks(rows.apart(np.arange(3)), 0.7, 0.8)
    assert set(zip(*(each.tolist() for each in found.of("containment")), strict=True)) == {(1, 0), (2, 0)}
    assert "benchmark" not in found.counts
    found = find_leaks(rows.apart(np.array([0, 0, 1])), 0.7, 0.8)
    assert set(zip(*(each.tolist() for each in found.of("containment")), strict=True)) == {(2, 0)}
