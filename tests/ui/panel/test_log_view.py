from tests.ui.panel import seed
from ui.panel.log_view import LONGEST, lines_of, marked, matching


def test_a_line_that_was_written_over_keeps_its_last_state():
    assert lines_of("start\n 10 %\r 50 %\r100 %\nend\r\n") == ["start", "100 %", "end"]


def test_an_empty_log_has_no_line():
    assert lines_of("") == []


def test_a_line_without_an_end_is_a_line_and_a_long_one_is_cut():
    assert lines_of("a\nb") == ["a", "b"]
    (line,) = lines_of("x" * 10_000)
    assert len(line) == LONGEST and line.endswith("…")


def test_what_a_terminal_would_obey_is_shown():
    (line,) = lines_of(seed.ANSI)
    assert "\x1b" not in line and "\u202e" not in line


def test_a_search_ignores_case_and_marks_each_place():
    lines = ["Loss 2.5", "step 3", "loss, LOSS"]
    assert matching(lines, "loss") == ["Loss 2.5", "loss, LOSS"]
    assert matching(lines, "") == lines
    assert marked("loss, LOSS", "loss") == "<mark>loss</mark>, <mark>LOSS</mark>\n"


def test_a_log_cannot_write_into_the_page():
    shown = marked(seed.HOSTILE, "script")
    assert "<script" not in shown and "<img" not in shown
    assert shown.count("<mark>script</mark>") == 2


def test_a_letter_that_grows_when_lowered_moves_no_mark():
    # U+0130 lowers to two characters: places in the lowered text are not those of the line.
    assert marked("\u0130 loss", "loss") == "\u0130 loss\n"
