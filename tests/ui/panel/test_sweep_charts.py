import pytest

from pipelines.search.comparison import Axis
from tests.pipelines.search.planted import halving, write
from tests.ui.panel import seed
from ui.panel import sweep_charts, sweeps_backend


@pytest.fixture
def view(workspace):
    write(workspace, halving("small-sweep", until=16))
    return sweeps_backend.sweep("small-sweep").value


def test_every_point_is_drawn_once_whoever_leads_or_is_chosen(view):
    figure = sweep_charts.curves(view, "trial-4")
    drawn = sum(1 for trace in figure.data for step in trace.x if step is not None)
    assert drawn == sum(len(points) for points in view.curves.values())
    assert [trace.name for trace in figure.data] == ["ended", "at work", "leader", "chosen"]
    assert set(filter(None, figure.data[3].text)) == {"trial-4"}


def test_a_leader_that_is_chosen_is_drawn_as_chosen(view):
    figure = sweep_charts.curves(view, view.leader.trial)
    assert [trace.name for trace in figure.data] == ["ended", "at work", "chosen"]


def test_the_leader_is_told_in_minutes_since_the_first_turn(view):
    (trace,) = sweep_charts.best(view).data
    assert trace.x[0] == pytest.approx(20 / 60) and list(trace.y) == [each.loss for each in view.best]


def test_every_value_has_a_place_on_its_axis_and_none_lies_below_all():
    dimension = sweep_charts._dimension(Axis("learning_rate", "loguniform", (1e-4, 1e-3, None)))
    *places, none = dimension["values"]
    assert places == [-4, -3] and none < -4 and dimension["ticktext"][0] == "none"
    assert dimension["range"][0] < none and dimension["range"][1] > -3
    dimension = sweep_charts._dimension(Axis("lora_r", "choice", (16, 8, 16)))
    assert dimension["values"] == [1, 0, 1] and dimension["ticktext"] == ["8", "16"]


def test_one_value_alone_still_has_an_axis():
    dimension = sweep_charts._dimension(Axis("weight_decay", "uniform", (0.1, 0.1)))
    assert dimension["range"][0] < 0.1 < dimension["range"][1]


def test_text_of_others_is_no_markup(view):
    hostile = ["q_proj", seed.HOSTILE]
    dimension = sweep_charts._dimension(Axis("target_modules", "choice", (hostile, "all-linear")))
    assert all("<" not in text for text in dimension["ticktext"])
    figure = sweep_charts.sliced(view, Axis(seed.HOSTILE, "choice", (hostile,) * len(view.compared.trials)))
    assert "<img" not in figure.to_json() and "\\u003cimg" not in figure.to_json()


def test_the_parallel_coordinates_end_at_the_loss(view):
    (trace,) = sweep_charts.parallel(view).data
    assert [dimension.label for dimension in trace.dimensions] == [
        "learning_rate",
        "warmup_steps",
        "lora_r",
        f"loss, step {view.compared.step}",
    ]
    assert all(len(dimension["values"]) == len(view.compared.trials) for dimension in trace.dimensions)


def test_the_timeline_has_a_row_for_each_worker_and_a_bar_for_each_turn(view):
    (trace,) = sweep_charts.timeline(view).data
    assert len(trace.x) == len(view.spans) and len(set(trace.y)) == 2
    assert trace.x[0] == view.spans[0].seconds * 1000
