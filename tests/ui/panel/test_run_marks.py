import pytest

from ui.panel.run_marks import Mark, best_validation, marks_of

CURVES = {"validation/loss": [(0, 3.4, 1.0), (8, 2.5, 2.0), (16, 2.5, 3.0), (24, 2.9, 4.0)]}


def test_the_lowest_validation_is_marked_the_first_of_equals():
    assert best_validation(CURVES) == (8, 2.5)
    assert marks_of(CURVES, {}) == [Mark(8, "best")]


def test_the_weights_that_were_kept_are_named_as_such():
    assert marks_of(CURVES, {"kept_step": 8}) == [Mark(8, "kept")]
    assert marks_of(CURVES, {"kept_step": 16}) == [Mark(8, "best")]


def test_overfitting_and_an_early_end_are_marked():
    curves = CURVES | {"validation/overfit_since": [(24, 8.0, 4.0)]}
    marks = marks_of(curves, {"steps": 24, "planned_steps": 60})
    assert marks == [Mark(8, "best"), Mark(8, "overfits"), Mark(24, "stopped")]


@pytest.mark.parametrize("figures", [{}, {"steps": 60, "planned_steps": 60}, {"steps": 5}])
def test_a_run_that_went_its_way_has_no_mark_without_a_validation(figures):
    assert best_validation({}) is None
    assert marks_of({"train/loss": [(1, 2.0, 0.0)]}, figures) == []
