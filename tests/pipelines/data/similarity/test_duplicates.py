from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.similarity.duplicates import MISSED, banding, character_shingles, jaccard, normalise, similarity

words = st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"])


def test_case_punctuation_and_spacing_make_no_other_text_but_punctuation_alone_does():
    assert normalise("Hello,  World!") == normalise("hello world") == "hello world"
    assert normalise("\uff28ello") == "hello"
    assert normalise("?!") != normalise("...")


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


def test_a_short_text_and_a_longer_one_are_compared_by_characters():
    short = "please restart the router and wait for two minutes"
    longer = f"{short} ok"
    assert len(short.split()) < 10 <= len(longer.split())
    assert similarity(short, longer) == jaccard(character_shingles(short), character_shingles(longer)) > 0.9
    assert similarity(longer, f"{longer} now") == 6 / 7
