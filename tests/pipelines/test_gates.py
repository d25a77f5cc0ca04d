"""Gates, verdicts and waivers: who may pass, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from pipelines.gates import Gate, Report, Verdict, Waiver, decide, report_key

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)


def report(*gates, fingerprints=None):
    return Report(
        stage="audit",
        recipe_name="small",
        gates=gates,
        fingerprints=fingerprints or {"dataset": "d1"},
        recipe={},
        seconds=1.0,
        created_at=NOW,
    )


def waiver(gate="data.size", of=None, **changes):
    given = {"by": "Ada", "because": "a pilot", "created_at": NOW} | changes
    return Waiver(gate=gate, report=of or report().key, **given)


CLOSED = decide("data.size", False, "750 of 1000.")
OPEN = decide("data.schema", True, "All rows read.")


def test_a_gate_is_open_exactly_when_its_rule_holds():
    assert (OPEN.verdict, CLOSED.verdict) == (Verdict.OPEN, Verdict.CLOSED)


def test_one_closed_gate_closes_the_report():
    assert report(OPEN, CLOSED).verdict is Verdict.CLOSED
    assert report(OPEN, CLOSED).closed_gates == (CLOSED,)
    assert report(OPEN).verdict is Verdict.OPEN
    aside = Gate(gate="a.b", verdict=Verdict.NOT_APPLICABLE, evidence="why")
    assert report(OPEN, aside).verdict is Verdict.OPEN
    assert report().verdict is Verdict.OPEN


def test_a_waiver_opens_its_gate_and_says_who_and_why():
    passed = report(OPEN, CLOSED).with_waivers((waiver(),), NOW)
    assert passed.verdict is Verdict.WAIVED
    assert passed.gates[1].evidence == "750 of 1000. Waived by Ada: a pilot"
    assert passed.waivers == (waiver(),)


def test_a_waiver_of_one_gate_leaves_another_closed():
    other = decide("data.provenance", False, "No collector.")
    passed = report(CLOSED, other).with_waivers((waiver(),), NOW)
    assert passed.verdict is Verdict.CLOSED
    assert [gate.gate for gate in passed.closed_gates] == ["data.provenance"]


def test_a_waiver_holds_until_its_end_and_not_a_second_longer():
    until = NOW + timedelta(days=1)
    bounded = waiver(until=until)
    assert report(CLOSED).with_waivers((bounded,), until).verdict is Verdict.WAIVED
    assert report(CLOSED).with_waivers((bounded,), until + timedelta(seconds=1)).verdict is Verdict.CLOSED


def test_a_waiver_does_not_reach_a_report_on_other_inputs():
    changed = report(CLOSED, fingerprints={"dataset": "d2"})
    passed = changed.with_waivers((waiver(),), NOW)
    assert passed.verdict is Verdict.CLOSED and passed.waivers == ()


def test_an_open_gate_stays_open_whatever_is_waived():
    assert report(OPEN).with_waivers((waiver(gate="data.schema"),), NOW).verdict is Verdict.OPEN


def test_the_newest_of_two_waivers_counts():
    passed = report(CLOSED).with_waivers((waiver(), waiver(by="Grace")), NOW)
    assert passed.gates[0].evidence.endswith("Waived by Grace: a pilot")


def test_waiving_does_not_change_the_report_itself():
    original = report(CLOSED)
    original.with_waivers((waiver(),), NOW)
    assert original.verdict is Verdict.CLOSED


def test_the_key_covers_the_stage_and_what_it_read():
    assert report().key == report_key("audit", {"dataset": "d1"})
    assert report_key("split", {"dataset": "d1"}) != report().key
    assert report_key("audit", {"dataset": "d2"}) != report().key
    assert report(CLOSED).key == report(OPEN).key


def test_the_json_of_a_report_leads_with_stage_verdict_and_key():
    shown = report(CLOSED).as_json()
    assert list(shown)[:3] == ["stage", "verdict", "key"]
    assert shown["verdict"] == "closed" and shown["gates"][0] == {
        "gate": "data.size",
        "verdict": "closed",
        "evidence": "750 of 1000.",
    }
    assert Report.model_validate({k: v for k, v in shown.items() if k not in ("verdict", "key")}) == report(CLOSED)


def test_records_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        Gate(gate="a", verdict=Verdict.OPEN, evidence="", colour="green")
