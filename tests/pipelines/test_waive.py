"""Waivers: who may let what pass, on which evidence, until when."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import GateClosed, UserError
from pipelines import audit, split
from pipelines.gates import Verdict
from pipelines.recipe_file import load_recipe
from pipelines.waive import end_of, stage_of, waive

PERSON = {"by": "Ada Lovelace", "because": "a pilot with forty examples"}


@pytest.fixture
def recipe(tmp_path, recipe_file):
    """Forty examples by a named person: too few for the size gate, in order otherwise."""
    rows = [
        {"prompt": f"What is the {n}th letter of word {n * 7}?", "completion": f"It is {chr(97 + n % 26)}{n}."}
        for n in range(40)
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    provenance = {"source": "made up", "collector": "the tests", "annotator": "Ada"}
    return load_recipe(recipe_file(dataset={"source": "examples.jsonl", "provenance": provenance}))


def test_a_waived_gate_lets_the_next_stage_start(recipe, workspace):
    assert audit.STAGE.perform(recipe, workspace).verdict is Verdict.CLOSED
    with pytest.raises(GateClosed, match=r"data\.size is closed"):
        split.STAGE.perform(recipe, workspace)
    waiver = waive(recipe, workspace, "data.size", **PERSON)
    assert (waiver.gate, waiver.by, waiver.until) == ("data.size", "Ada Lovelace", None)
    assert split.STAGE.perform(recipe, workspace).stage == "split"
    assert audit.STAGE.perform(recipe, workspace).waivers == (waiver,)


def test_without_a_report_there_is_nothing_to_waive(recipe, workspace):
    with pytest.raises(GateClosed, match="there is no audit report on the present inputs") as caught:
        waive(recipe, workspace, "data.size", **PERSON)
    assert "sluice audit RECIPE" in caught.value.remedy


def test_one_more_row_needs_another_look_and_another_waiver(recipe, workspace, tmp_path):
    audit.STAGE.perform(recipe, workspace)
    waive(recipe, workspace, "data.size", **PERSON)
    with (tmp_path / "examples.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "And another one?", "completion": "Yes."}) + "\n")
    with pytest.raises(GateClosed, match="no audit report on the present inputs"):
        waive(recipe, workspace, "data.size", **PERSON)
    assert audit.STAGE.perform(recipe, workspace).verdict is Verdict.CLOSED


def test_an_open_gate_is_not_waived(recipe, workspace):
    audit.STAGE.perform(recipe, workspace)
    with pytest.raises(UserError, match=r"data\.schema is open, not closed"):
        waive(recipe, workspace, "data.schema", **PERSON)
    assert workspace.waivers([audit.STAGE.perform(recipe, workspace).key]) == ()


def test_an_unknown_gate_is_refused_with_the_nearest_one(recipe, workspace):
    with pytest.raises(UserError, match=r"'data\.sise' is no gate; did you mean data\.size\?"):
        waive(recipe, workspace, "data.sise", **PERSON)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"by": ""}, "--by is empty"),
        ({"by": "  "}, "--by is empty"),
        ({"because": ""}, "--because is empty"),
        ({"because": "a\nb"}, "line breaks"),
        ({"by": "A\x1b[31mda"}, "control characters"),
        ({"by": "a" * 256}, "256 characters"),
        ({"because": "a" * 2001}, "2001 characters"),
        ({"until": datetime.now(UTC) - timedelta(minutes=1)}, "in the past"),
    ],
)
def test_a_waiver_needs_a_name_a_reason_and_a_day_to_come(recipe, workspace, changes, words):
    audit.STAGE.perform(recipe, workspace)
    with pytest.raises(UserError, match=words) as caught:
        waive(recipe, workspace, "data.size", **(PERSON | changes))
    assert caught.value.exit_code == 2
    assert workspace.reports()[0].verdict is Verdict.CLOSED


def test_a_waiver_can_be_prolonged_and_not_shortened(recipe, workspace):
    audit.STAGE.perform(recipe, workspace)
    soon = datetime.now(UTC) + timedelta(days=1)
    waive(recipe, workspace, "data.size", **PERSON, until=soon)
    with pytest.raises(UserError, match="waived already, by Ada Lovelace"):
        waive(recipe, workspace, "data.size", **PERSON, until=soon)
    longer = waive(recipe, workspace, "data.size", by="Grace", because="the pilot goes on")
    assert workspace.reports()[0].waivers == (longer,)
    with pytest.raises(UserError, match="waived already, by Grace, without an end"):
        waive(recipe, workspace, "data.size", **PERSON, until=soon)


def test_a_day_ends_with_its_last_second_in_utc():
    assert end_of("2030-12-31") == datetime(2030, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert end_of("2030-12-31T10:00") == datetime(2030, 12, 31, 10, tzinfo=UTC)
    assert end_of("2030-12-31T10:00+02:00") == datetime(2030, 12, 31, 8, tzinfo=UTC)
    for wrong in ("tomorrow", "2030-13-01", "31.12.2030"):
        with pytest.raises(UserError, match="is no date"):
            end_of(wrong)


def test_every_gate_belongs_to_one_stage():
    assert stage_of("data.size").name == "audit"
    assert stage_of("split.leakage").name == "split"
    assert stage_of("registry.lineage").name == "promote"
