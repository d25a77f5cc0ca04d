import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from pipelines.data.sides.past import read_past
from pipelines.data.versioned import versions
from pipelines.data.versioned.export import export, inert
from pipelines.data.versioned.table import read_version
from tests.pipelines.data.small_table import write_rows


@pytest.fixture
def table(tmp_path):
    """Three versions: the second adds and removes, the third changes a group."""
    uri = str(tmp_path / "split")
    write_rows(uri, {"id": "a"}, {"id": "b", "split": "test"}, {"id": "c"})
    write_rows(uri, {"id": "a"}, {"id": "b", "split": "test"}, {"id": "d"}, {"id": "e", "split": "validation"})
    write_rows(
        uri, {"id": "a", "group": "g"}, {"id": "b", "split": "test"}, {"id": "d"}, {"id": "e", "split": "validation"}
    )
    return uri


def test_the_log_lists_versions_newest_first_with_their_sizes(table):
    listed = versions.log(table)
    assert [each.version for each in listed] == [2, 1, 0]
    assert listed[0].rows == {"train": 2, "validation": 1, "test": 1, "held_out": 0}
    assert listed[0].policy == "p" and not listed[0].starts_over and listed[0].restored is None
    json.dumps([each.as_json() for each in listed])


def test_a_difference_counts_and_shows_each_kind(table):
    found = versions.diff(table, 0, 1)
    assert (found.added, found.removed, found.changed, found.moved) == (2, 1, 0, 0) and found.problem is None
    assert [row["id"] for row in found.ids["added"]] == ["d", "e"]
    assert [row["id"] for row in found.ids["removed"]] == ["c"]
    later = versions.diff(table, 1, 2)
    assert (later.added, later.removed, later.changed) == (0, 0, 1) and later.ids["changed"][0]["group"] == "g"
    assert versions.diff(table, 1, 2, limit=0).ids["changed"] == []


def test_rows_that_moved_under_one_policy_are_a_problem_and_after_a_new_start_none(table):
    write_rows(table, {"id": "a", "split": "test"}, {"id": "b", "split": "test"})
    found = versions.diff(table, 2, 3)
    assert found.moved == 1 and "1 examples moved between sides" in found.problem
    assert (found.ids["moved"][0]["before"], found.ids["moved"][0]["split"]) == ("train", "test")
    write_rows(table, {"id": "a"}, {"id": "b"}, starts_over=True)
    assert versions.diff(table, 3, 4).moved == 2 and versions.diff(table, 3, 4).problem is None
    write_rows(table, {"id": "a", "split": "test"}, policy="another")
    assert versions.diff(table, 4, 5).moved == 1 and versions.diff(table, 4, 5).problem is None


def test_a_version_is_shown_by_side_with_private_data_masked(table, monkeypatch):
    turns = [{"role": "user", "content": "I am jane@example.com"}, {"role": "assistant", "content": "yes"}]
    write_rows(
        table, {"id": "m", "messages": json.dumps(turns)}, *({"id": f"x{n}", "split": "test"} for n in range(30))
    )
    version, rows = versions.show(table, 3, side="train")
    assert version.rows["test"] == 30 and len(rows) == 1
    assert "jane" not in rows[0]["text"] and "<email>" in rows[0]["text"]
    assert len(versions.show(table, 3, limit=7)[1]) == 7
    counted, own = [], versions._sizes
    monkeypatch.setattr(versions, "_sizes", lambda uri, version: counted.append(version) or own(uri, version))
    versions.show(table, 3)
    assert counted == [3]
    with pytest.raises(UserError, match="'tset' is no side"):
        versions.show(table, 3, side="tset")


def test_a_restored_version_is_a_new_one_equal_to_the_old_from_which_the_next_grows(table):
    assert versions.restore(table, 0) == 3
    assert read_version(table, 3).equals(read_version(table, 0))
    assert [each.version for each in versions.log(table)] == [3, 2, 1, 0]
    assert versions.log(table)[0].restored == 0
    past = read_past(table, "p")
    assert past.present["id"].to_pylist() == ["a", "b", "c"]
    assert sorted(past.gone["id"].to_pylist()) == ["d", "e"]
    with pytest.raises(UserError, match="Version 3 is the newest"):
        versions.restore(table, 3)


def test_a_restored_version_goes_back_to_the_places_of_its_own_start(table):
    write_rows(table, {"id": "a", "split": "test"}, {"id": "b"}, {"id": "f"}, starts_over=True)
    assert versions.restore(table, 2) == 4
    write_rows(table, {"id": "a"}, {"id": "b", "split": "test"})
    for before, after, moved, over in ((3, 4, 2, True), (4, 3, 2, True), (2, 4, 0, False), (3, 5, 2, True)):
        found = versions.diff(table, before, after)
        assert (found.moved, found.started_over, found.problem) == (moved, over, None), (before, after)
    past = read_past(table, "p")
    # What only the forgotten start brought has no place.
    assert sorted([*past.present["id"].to_pylist(), *past.gone["id"].to_pylist()]) == ["a", "b", "c", "d", "e"]
    assert versions.restore(table, 3) == 6
    past = read_past(table, "p")
    assert past.present["id"].to_pylist() == ["a", "b", "f"] and past.gone is None
    write_rows(table, {"id": "a"}, {"id": "b"})
    found = versions.diff(table, 6, 7)
    assert (found.moved, found.started_over) == (1, False) and "moved between sides" in found.problem


def test_an_unknown_version_names_those_that_exist(table, tmp_path):
    for ask in (
        lambda: versions.diff(table, 0, 9),
        lambda: versions.show(table, 9),
        lambda: versions.restore(table, 9),
        lambda: export(table, 9, tmp_path / "x.csv"),
    ):
        with pytest.raises(UserError, match=r"there is no version 9.*\n?.*2, 1, 0"):
            ask()
    with pytest.raises(UserError, match="there is no split yet"):
        versions.log(str(tmp_path / "none"))


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")', "\n=1"])
def test_18_a_cell_that_a_spreadsheet_would_compute_is_prefixed(table, tmp_path, cell):
    write_rows(table, {"id": "a", "group": cell, "source": "2 - 1", "fold": 3}, {"id": "b"})
    assert export(table, 3, tmp_path / "out.csv") == 2
    with (tmp_path / "out.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["group"] == "'" + cell and first["source"] == "2 - 1" and first["fold"] == "3"
    assert second["group"] == ""
    # Only in CSV: nothing computes the cells of the others.
    export(table, 3, tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["group"] == cell


def test_a_null_stays_null_when_cells_are_made_inert():
    assert inert(pa.array(["=1", None, "a", ""])).to_pylist() == ["'=1", None, "a", ""]


def test_a_version_is_exported_whole_or_by_side(table, tmp_path):
    assert export(table, 1, tmp_path / "all.parquet") == 4
    stored = pq.read_table(tmp_path / "all.parquet").sort_by("id")
    assert stored.equals(read_version(table, 1))
    assert export(table, 1, tmp_path / "test.jsonl", side="test") == 1
    row = json.loads((tmp_path / "test.jsonl").read_text())
    assert row["id"] == "b" and row["messages"][0] == {"role": "user", "content": "b"}


def test_a_file_that_exists_or_of_another_kind_is_refused(table, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(table, 1, tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    with pytest.raises(UserError, match=r"'\.xlsx' names no format"):
        export(table, 1, tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="cannot be written"):
        export(table, 1, tmp_path / "no" / "out.csv")
