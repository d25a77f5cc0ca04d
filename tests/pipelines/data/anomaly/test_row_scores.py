# ruff: noqa: RUF001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.anomaly.row_scores import damage, repetition, row_scores

LONG = "The function returns the number of bytes that were written, or raises an error when the disk is full."


def columns(*answers, prompt="What does it do?"):
    return {name: column.to_pylist() for name, column in row_scores([prompt] * len(answers), answers).items()}


def test_an_answer_s_language_is_told_with_its_certainty():
    found = columns(
        LONG, "Die Funktion gibt die Anzahl der geschriebenen Bytes zurück oder meldet einen Fehler.", "No."
    )
    assert found["language"] == ["en", "de", None]
    assert found["score_language"][0] > 0.9 < found["score_language"][1]
    assert found["score_language"][2] is None


def test_digits_and_marks_have_no_language():
    assert columns("1234567890 " * 20, "=====---------=====" * 5)["language"] == [None, None]


def test_what_comes_again_is_repetition_and_what_comes_first_is_not():
    assert repetition(f"{LONG} " * 2) == pytest.approx(0.5)
    assert repetition(f"{LONG} " * 4) == pytest.approx(0.75)
    assert repetition("again " * 40) > 0.85
    assert repetition(LONG) == 0


def test_lines_that_come_again_are_repetition_whatever_stands_between():
    lines = [line for number in range(12) for line in ("Thank you for asking", f"number{number}")]
    assert repetition("\n".join(lines)) > 0.5


def test_scripts_without_spaces_repeat_by_their_characters():
    sentence = "这个函数返回写入的字节数如果磁盘已满则会引发错误请检查返回值然后再继续执行下一步操作并记录结果"
    assert repetition(sentence * 4) > 0.7
    assert repetition(sentence * 3 + "完") > 0.6
    assert repetition(sentence) == 0


def test_a_short_list_is_no_repetition():
    assert repetition("yes no yes no yes no yes no") == 0


@given(st.text(), st.text())
def test_scores_of_any_text_are_shares(prompt, answer):
    found = row_scores([prompt], [answer])
    assert 0 <= found["score_repetition"][0].as_py() <= 1
    assert found["score_encoding"][0].as_py() >= 0
    assert isinstance(found["score_refusal"][0].as_py(), bool)
    assert all(len(column) == 1 for column in found.values())


@pytest.mark.parametrize(
    "text", ["Überschriften heißen so.", "C’est naïve — vraiment.", "これは日本語です。", "Это по-русски."]
)
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_utf_8_read_as_something_else_is_damage_and_the_text_itself_is_none(text, wrong):
    assert damage(text) == 0
    assert damage(text.encode().decode(wrong, errors="replace")) > 0


def test_a_character_that_was_lost_is_damage_in_prompt_and_answer():
    assert columns("Caf\ufffd, please, it is the last time.")["score_encoding"][0] > 0
    assert columns("Yes, of course.", prompt="Is the caf\ufffd open?")["score_encoding"][0] > 0
    assert columns("Yes, of course.")["score_encoding"] == [0]


def test_no_rows_have_empty_columns_of_the_same_types():
    none, some = row_scores([], []), row_scores(["a"], ["b"])
    assert {name: column.type for name, column in none.items()} == {name: column.type for name, column in some.items()}
    assert {len(column) for column in none.values()} == {0}
