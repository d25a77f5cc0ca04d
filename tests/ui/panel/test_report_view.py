from tests.ui.panel import seed
from ui.panel.charts import POINTS_SHOWN, Series, curve, thinned
from ui.panel.report_view import masked, sample_text


def test_supervised_spans_are_marked():
    shown = {"text": "user Hi bot Yes user So bot No", "supervised_text": "YesNo"}
    marked = "user Hi bot \u27e6Yes\u27e7 user So bot \u27e6No\u27e7"
    assert masked(shown | {"marked_text": marked}) == "user Hi bot <mark>Yes</mark> user So bot <mark>No</mark>"


def test_a_text_with_such_marks_of_its_own_is_marked_by_its_end():
    shown = {
        "text": "say \u27e6x\u27e7 -> y",
        "supervised_text": "y",
        "marked_text": "say \u27e6x\u27e7 -> \u27e6y\u27e7",
    }
    assert masked(shown) == "say \u27e6x\u27e7 -&gt; <mark>y</mark>"


def test_markup_in_an_example_is_escaped():
    shown = {"text": f"{seed.HOSTILE} yes", "supervised_text": "yes", "marked_text": f"{seed.HOSTILE} \u27e6yes\u27e7"}
    assert "<img" not in masked(shown) and "<script" not in masked(shown)
    assert masked(shown).endswith(" <mark>yes</mark>")


def test_an_example_without_supervision_is_shown_whole():
    assert masked({"text": "all of it"}) == "all of it"


def test_a_long_sample_is_cut():
    text = sample_text({"id": 7, "prompt": "x" * 5000, "parts": [1, "ä"]})
    assert text.splitlines()[0] == "id: 7"
    assert text.splitlines()[1].endswith("…") and len(text.splitlines()[1]) < 2100
    assert text.splitlines()[2] == 'parts: [1, "ä"]'


def test_a_long_curve_is_thinned_and_keeps_its_last_point():
    points = [(step, float(step), 0.0) for step in range(25_001)]
    shown = thinned(points)
    assert len(shown) <= POINTS_SHOWN + 1
    assert shown[-1] == points[-1] and shown[0] == points[0]
    assert set(shown) <= set(points)
    assert thinned(points[:10]) == points[:10]


def test_a_curve_has_a_trace_for_each_series():
    series = [Series("train", [(1, 2.0, 0.0)], "train"), Series("validation", [(1, 2.1, 0.0)], "validation")]
    figure = curve("Loss", series, "nats per token")
    assert [trace.name for trace in figure.data] == ["train", "validation"]
    assert figure.layout.title.text == "Loss, nats per token"
