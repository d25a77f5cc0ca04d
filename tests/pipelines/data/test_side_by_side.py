from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.side_by_side import MOST_WORDS, differences


def test_what_one_text_lacks_is_marked_in_the_other():
    left, right = differences("Return the name of the file.", "Return the names of a file, always.")
    assert [text for text, same in left if not same] == ["name", "the"]
    assert [text for text, same in right if not same] == ["names", "a", ", always"]


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_pieces_are_the_texts(left, right):
    spans = differences(left, right)
    assert ["".join(text for text, _ in side) for side in spans] == [left, right]
    shared = ["".join(text for text, same in side if same) for side in spans]
    assert shared[0] == shared[1]


def test_the_end_of_a_long_text_is_shown_unmarked():
    left, right = differences("word " * 5 * MOST_WORDS, "other " * 5 * MOST_WORDS)
    assert "".join(text for text, _ in left) == "word " * 5 * MOST_WORDS
    assert left[-1][1] and right[-1][1]
