from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import UserError
from pipelines.data.display.browse import Filters
from tests.pipelines.data import planted
from tests.ui.panel import seed
from ui.panel import data_backend

pytestmark = pytest.mark.slow


@pytest.fixture
def data(audited, monkeypatch):
    """The planted data as the panel opens it."""
    monkeypatch.setenv("SLUICE_STORAGE", audited[0].settings.storage)
    return data_backend.opened("planted").value


@pytest.fixture
def leaky(audited, monkeypatch):
    """The same data under a recipe whose sides leak."""
    monkeypatch.setenv("SLUICE_STORAGE", audited[0].settings.storage)
    return data_backend.opened("leaky").value


def test_the_newest_audit_and_split_are_opened(data, audited):
    audit, split = audited[1]["planted"]
    assert (data.audit.key, data.split.key, data.here) == (audit.key, split.key, True)
    assert data.page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert data_backend.opened("nobody").value is None


def test_what_can_be_filtered_by_is_offered(data):
    offered = data_backend.offered(data).value
    assert [name for name, _ in offered.columns["source"]] == ["letters", "desk notes"]
    assert set(dict(offered.suspects)) >= {"refusal", "encoding", "repetition"}
    assert offered.private == [("email", 3)]
    assert set(offered.sides) == {"train", "validation", "test"}


def test_rows_carry_their_side_of_the_split(data, audited):
    sizes = audited[1]["planted"][1].figures["rows"]
    train = data_backend.page(data, Filters(side="train"), 0, 400).value
    # Exact repeats enter the split once; every row of the same conversation has its side.
    assert sizes["train"] <= train.total < 343
    assert all(row.side == "train" for row in train.rows)
    assert planted.MAIL not in repr(data_backend.page(data, Filters(private="any"), 0, 10).value)


def test_numbers_without_a_row_or_cluster_are_none(data):
    assert data_backend.row(data, 0).value.number == 0
    for number in (-1, -2, 343, 10**15):
        assert data_backend.row(data, number).value is None
        assert data_backend.cluster(data, number).value is None
    # The second row of a cluster is no cluster's number.
    assert data_backend.cluster(data, 300).value is None and data_backend.cluster(data, 0).value.rows == 3


def test_a_decision_is_recorded_once_and_leaves_the_queue(data):
    before = data_backend.queue(data, "refusal", 0, 10, decided_too=False).value
    assert before.total == 1
    row = before.rows[0]
    for _ in range(2):
        data_backend.decide("planted", row, "drop", "jane", "It declines.")
    decided = data_backend.decisions("planted").value
    assert (decided[row.id].decision, decided[row.id].by, decided[row.id].because) == ("drop", "jane", "It declines.")
    assert "refusal" in decided[row.id].kinds
    assert recorded(row.id) == 1
    assert data_backend.queue(data, "refusal", 0, 10, decided_too=False).value.total == 0
    again = data_backend.queue(data, "refusal", 0, 10, decided_too=True).value
    assert again.total == 1 and again.decided[row.id].decision == "drop"
    # Who thinks better of it is on the record too, and counts.
    data_backend.decide("planted", row, "keep", "joe", "It should decline this.")
    assert recorded(row.id) == 2
    assert data_backend.decisions("planted").value[row.id].decision == "keep"


def test_the_command_line_lists_suspects_in_the_order_of_the_queue(data):
    from pipelines.review import suspects_of

    view = data_backend._view(data)
    listed, _ = suspects_of(view.corpus, view.evidence, {}, 1000)
    queued = data_backend.queue(data, None, 0, 1000, decided_too=True).value.rows
    assert list(dict.fromkeys((each["file"], each["row"]) for each in listed)) == [
        (row.facts["file"], row.facts["position"]) for row in queued
    ]


def recorded(example):
    from sqlalchemy import func, select

    from pipelines.records import ReviewRow

    with data_backend.workspace().session() as session:
        return session.scalar(select(func.count()).where(ReviewRow.example_id == example))


def test_leaks_are_pairs_of_rows(leaky, audited):
    pairs, total = data_backend.leaks(leaky, 0).value
    assert total == sum(audited[1]["leaky"][1].figures["leaks"].values())
    for pair in pairs:
        assert pair.left.side != pair.right.side
        assert {pair.left.id, pair.right.id} == set(pair.ids)
    assert {pair.kind for pair in pairs} <= {"prompt", "group", "near"}
    later, _ = data_backend.leaks(leaky, total - 1).value
    assert len(later) == 1 and later[0].kind == "near"
    assert later[0].similarity >= 0.7


def test_rows_that_were_kept_aside_are_paged_and_masked(data):
    first, total = data_backend.aside(data, 0, 10).value
    later, _ = data_backend.aside(data, 10, 10).value
    assert total == seed.BROKEN_LINES and [row.row for row in (*first, *later)] == list(range(344, 344 + total))
    assert all(row.file == "planted.jsonl" and row.reason for row in first)
    assert "<email" in first[0].content and planted.MAIL not in repr((first, later))


def test_leaks_that_are_no_longer_kept_are_not_taken_for_none(leaky, data):
    assert data_backend.leaks(data, 0).value == ((), 0)
    produced = leaky.split.produced | {"split": "0" * 64}
    split = leaky.split.model_copy(update={"produced": produced, "fingerprints": {"x": "2"}})
    assert data_backend.leaks(replace(leaky, split=split), 0).value == ((), None)


def test_data_that_are_gone_from_this_machine_are_said_to_be(data, tmp_path):
    away = data.audit.model_copy(update={"produced": {"corpus": str(tmp_path), "evidence": str(tmp_path)}})
    gone = replace(data, audit=away)
    found = data_backend.page(gone, Filters(), 0, 10)
    assert found.value is None and "sluice audit" in found.problem.remedy
    assert gone.page is None


def test_sides_are_left_out_where_the_table_is_gone(data, tmp_path):
    split = data.split.model_copy(
        update={"produced": data.split.produced | {"table": str(tmp_path / "gone")}, "fingerprints": {"x": "1"}}
    )
    row = data_backend.row(replace(data, split=split), 0).value
    assert row.side is None and row.turns


def test_sides_are_back_when_their_table_is(data, monkeypatch):
    from pipelines.data.display import view

    def away(*place):
        raise UserError("The table cannot be read now.")

    with monkeypatch.context() as without:
        without.setattr(view, "sides_of", away)
        data_backend._sides.cache_clear()
        assert data_backend._view(data).sides is None
    assert data_backend._view(data).sides is not None


def test_evidence_that_is_made_again_is_read_again(data):
    folder = Path(data.audit.produced["evidence"])
    first = data_backend._evidence(str(folder), 1)
    assert data_backend._evidence(str(folder), 1) is first
    assert data_backend._evidence(str(folder), 2) is not first
