from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.display import side_by_side
from pipelines.data.display.side_by_side import MOST_WORDS, differences


def marked(spans):
    return [text.strip() for text, same in spans if not same]


def test_what_one_text_lacks_is_marked_in_the_other():
    left, right = differences("Return the name of the file.", "Return the names of a file, always.")
    assert marked(left) == ["name", "the"]
    assert marked(right) == ["names", "a", ", always"]
    assert marked(differences("one two", "one two three")[0]) == []


@given(st.text(max_size=200), st.text(max_size=200))
def test_the_pieces_are_the_texts(left, right):
    spans = differences(left, right)
    assert ["".join(text for text, _ in side) for side in spans] == [left, right]
    shared = ["".join("".join(text for text, same in side if same).split()) for side in spans]
    assert shared[0] == shared[1]


def test_the_middle_of_a_long_text_beyond_the_bound_is_shown_unmarked():
    words = [f"word{number}" for number in range(3 * MOST_WORDS)]
    left, right = " ".join(words), " ".join(word + "x" for word in words)
    spans = differences(left, right)
    assert ["".join(text for text, _ in side) for side in spans] == [left, right]
    assert spans[0] == [(" ".join(words[:MOST_WORDS]) + " ", False), (" ".join(words[MOST_WORDS:]), True)]


def test_texts_that_go_in_circles_are_not_lined_up(monkeypatch):
    compared = []
    monkeypatch.setattr(side_by_side, "SequenceMatcher", lambda *given, **options: compared.append(given))
    left, right = differences("begin " + "a b " * 5000 + "end", "begin " + "b c " * 5000 + "end")
    assert not compared
    assert left[0] == right[0] == ("begin ", True)
    assert [same for _, same in left] == [same for _, same in right] == [True, False, True]
