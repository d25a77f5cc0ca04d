from html.parser import HTMLParser

from pipelines.data.display.audit_tables import draw_table, tables_of
from tests.pipelines.data.planted import ANSI, HOSTILE

FIGURES = {
    "anomalies": {
        "kinds": {
            "length": {"threshold": 4.0, "count": 1234, "p50": 0.67, "p90": 1.9, "p99": 3.21, "p99.9": 5.5},
            "refusal": {"threshold": True, "count": 2},
        },
        "not_run": {"language": "No answer is long enough to tell its language."},
    },
    "label_noise": {
        "share": 0.01,
        "estimated_share": 0.031,
        "decided_rows": 7,
        "confusions": [{"given": HOSTILE, "proposed": ANSI, "rows": 12}],
    },
}


def test_thresholds_scores_and_what_was_not_looked_for_stand_in_one_table():
    thresholds, _ = tables_of(FIGURES)
    assert thresholds.rows == (
        ("length", "4", "robust z, at least", "1,234", "0.67", "1.9", "3.21", "5.5"),
        ("refusal", "yes", "", "2", "", "", "", ""),
        ("language", "", "No answer is long enough to tell its language.", "", "", "", "", ""),
    )
    assert {len(row) for row in thresholds.rows} == {len(thresholds.columns)}


def test_labels_in_doubt_are_pairs_with_their_rows_and_inert():
    _, confusions = tables_of(FIGURES)
    assert confusions.rows == ((HOSTILE, ANSI, "12"),)
    assert "3.1 %" in confusions.note and "1 % without what people decided" in confusions.note
    drawn = draw_table(confusions)
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(str(drawn))
    assert set(tags) == {"table", "tr", "th", "td"} and "\x1b" not in drawn


def test_there_is_no_table_of_nothing():
    assert tables_of({}) == ()
    assert tables_of({"anomalies": {}, "label_noise": {"share": None, "reason": "No row has a label."}}) == ()


def test_every_kind_of_suspect_says_what_its_threshold_is_measured_in():
    from pipelines.data.display.audit_tables import _UNITS
    from pipelines.recipe_data import Anomalies

    assert set(_UNITS) == set(Anomalies.model_fields) - {"max_share"}
