import pytest

from pipelines.data.display.audit_plots import headline, plots_of
from pipelines.data.display.plots import SHOWN, Bar, Plot, brief, draw, histogram, most_common

LENGTHS = {
    "min": 3,
    "median": 14.5,
    "mean": 15.2,
    "p95": 40,
    "max": 90,
    "histogram": [
        {"from": 0, "to": 8, "count": 0},
        {"from": 9, "to": 16, "count": 12},
        {"from": 17, "to": 32, "count": 0},
        {"from": 33, "to": None, "count": 5},
    ],
}


def test_a_histogram_keeps_its_empty_middle_and_loses_its_empty_ends():
    assert histogram(LENGTHS["histogram"]) == (Bar("≤ 16", 12), Bar("≤ 32", 0), Bar("> 32", 5))


def test_what_is_rare_is_added_up():
    counts = {f"name {number}": number for number in range(1, 31)}
    bars = most_common(counts)
    assert len(bars) == SHOWN + 1 and bars[0] == Bar("name 30", 30)
    assert bars[-1] == Bar("18 others", sum(range(1, 19)))
    assert sum(bar.value for bar in bars) == sum(counts.values())


def test_every_figure_that_can_be_drawn_is():
    figures = {
        "rows": 20,
        "readable_rows": 17,
        "prompt_words": LENGTHS,
        "over_length": {"512": 0.25},
        "languages": {"en": 15, "de": 2},
        "quarantined": {"syntax": 3},
        "most_common_answer": {"text": "no", "count": 3},
    }
    plots = {plot.title: plot for plot in plots_of(figures)}
    assert set(plots) == {"Length of the prompts", "Longer than the context", "Languages", "Kept aside"}
    assert plots["Length of the prompts"].note == "words; median 14.5, p95 40, max 90"
    assert "25 %" in draw(plots["Longer than the context"])
    assert "88.2 %" in draw(plots["Languages"])
    assert plots_of({}) == ()


def test_names_from_the_data_are_inert():
    plot = Plot("Labels", "", (Bar('"><script>x</script>', 3),), of=3)
    for ordered in (False, True):
        drawn = draw(Plot(plot.title, plot.note, plot.bars, ordered))
        assert "<script" not in drawn and "&lt;script" in drawn and "style=" not in drawn


@pytest.mark.parametrize(("count", "told"), [(7, "7"), (9_999, "9,999"), (12_345, "12.3k"), (2_500_000, "2.5M")])
def test_counts_fit_above_their_bars(count, told):
    assert brief(count) == told


def test_the_headline_has_what_is_there():
    assert headline({"rows": 2026, "duplicate_share": 0.5863}) == {"rows": "2,026", "repeat another": "58.6 %"}
