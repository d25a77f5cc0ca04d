import re
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.anomaly.word_ids import LONGEST, TOGETHER, joined, sequences, words_of

ascii_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@given(st.lists(ascii_texts, max_size=6))
def test_equal_words_have_equal_numbers_and_others_have_not(texts):
    words = words_of(texts)
    plain = [(row, word) for row, text in enumerate(texts) for word in re.findall("[a-z0-9]+", text.lower())]
    assert words.row.tolist() == [row for row, _ in plain]
    assert words.counts.tolist() == [sum(row == place for row, _ in plain) for place in range(len(texts))]
    by_word = {word: number for (_, word), number in zip(plain, words.ids.tolist(), strict=True)}
    assert words.ids.tolist() == [by_word[word] for _, word in plain]
    assert len(set(by_word.values())) == len(by_word)


@given(st.text(max_size=80))
def test_any_text_has_words_of_its_own_row(text):
    words = words_of(["before", text, "after"])
    assert words.texts == 3
    assert words.ids[0] == words_of(["before"]).ids[0]
    assert words.ids[-1] == words_of(["after"]).ids[0]
    assert words.ids[1:-1].tolist() == words_of([text]).ids.tolist()


def test_other_forms_share_a_stem_and_other_words_do_not():
    words = words_of(["returns returned readers"])
    assert words.stems[0] == words.stems[1] != words.stems[2]
    assert len(set(words.ids.tolist())) == 3


def test_letters_of_other_scripts_are_words_and_their_punctuation_is_none():
    assert words_of(["naïve “Überschrift”: großartig…"]).counts.tolist() == [3]
    assert words_of(["返回列表"]).counts.tolist() == [4]


def test_an_endless_text_is_cut():
    assert words_of(["a " * LONGEST]).counts.tolist() == [LONGEST // 2]


def test_sequences_stay_within_a_text():
    words = words_of(["one two three", "four", "one two"])
    keys, row = sequences(words, 2)
    assert row.tolist() == [0, 0, 2]
    assert keys[0] == keys[2] != keys[1]
    assert len(sequences(words, 8)[0]) == 0
    assert not np.isin(sequences(words_of(["two one"]), 2)[0], keys).any()


def test_many_texts_give_what_each_gives_and_take_no_more_memory_than_some_at_a_time():
    texts = [" ".join([f"{number}{'longword' * 10}"] * 20) for number in range(6 * TOGETHER)]
    tracemalloc.start()
    words = words_of(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words.texts == len(texts) and (words.counts == 20).all()
    single = joined([words_of(texts[start : start + 1]) for start in range(TOGETHER - 2, TOGETHER + 2)])
    there = (words.row >= TOGETHER - 2) & (words.row < TOGETHER + 2)
    assert (words.ids[there] == single.ids).all() and (words.stems[there] == single.stems).all()
    assert peak < 150e6
    assert words_of([]).texts == 0
