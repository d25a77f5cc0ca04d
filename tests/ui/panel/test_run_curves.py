from ui.panel.charts import Series, curve
from ui.panel.run_curves import change, scaled
from ui.panel.run_marks import Mark


def test_the_change_of_the_validation_loss_has_its_interval():
    curves = {
        "validation/difference": [(8, -0.4, 1.0), (16, 0.1, 2.0), (24, 0.2, 3.0)],
        "validation/low": [(8, -0.5, 1.0), (24, 0.1, 3.0)],
        "validation/high": [(8, -0.3, 1.0), (24, 0.3, 3.0)],
    }
    found = change(curves)
    # One validation has no interval: it is left out rather than drawn as if it were certain.
    assert [step for step, _, _ in found.points] == [8, 24]
    assert found.intervals == [(-0.5, -0.3), (0.1, 0.3)]
    drawn = curve("Change", [found], "")
    assert [round(reach, 6) for reach in drawn.data[0].error_y.array] == [0.1, 0.1]
    assert [round(reach, 6) for reach in drawn.data[0].error_y.arrayminus] == [0.1, 0.1]


def test_without_an_interval_there_is_no_chart_of_the_change():
    assert change({}) is None
    assert change({"validation/difference": [(8, 0.1, 1.0)]}) is None


def test_marks_are_lines_with_their_words():
    drawn = curve("Loss", [Series("train", [(1, 2.0, 0.0), (2, 1.0, 1.0)], "train")], "", [Mark(2, "best")])
    assert [(line.x0, line.x1) for line in drawn.layout.shapes] == [(2, 2)]
    assert [note.text for note in drawn.layout.annotations] == ["best"]


def test_a_scaled_curve_keeps_its_steps_and_times():
    assert scaled([(3, 2.0**31, 9.0)], 2**30) == [(3, 2.0, 9.0)]
