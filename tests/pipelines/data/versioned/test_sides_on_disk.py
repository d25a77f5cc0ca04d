"""Sides of the split as files."""

import pytest

from cluster.errors import UserError
from pipelines.data.versioned.sides_on_disk import sides_on_disk
from pipelines.data.versioned.table import read_side
from pipelines.gates import Report
from tests.pipelines.data.small_table import write_rows


def report_on(written, split):
    return Report.model_construct(produced={"table": written.uri, "version": "0", "split": split})


def test_each_side_has_its_rows_and_the_columns_that_were_asked_for(tmp_path):
    given = [{"id": f"i{n}", "split": ("train", "test", "validation")[n % 3], "rejected": f'"{n}"'} for n in range(20)]
    written = write_rows(tmp_path / "t", *given)
    found = sides_on_disk(
        report_on(written, written.fingerprint), ("train", "validation"), ("id", "rejected"), tmp_path
    )

    assert set(found) == {"train", "validation"}
    for side, rows in found.items():
        kept = rows.take(rows.order("id"))
        assert kept.schema.names == ["id", "rejected"]
        assert kept["id"].to_pylist() == sorted(row["id"] for row in given if row["split"] == side)


def test_a_fold_validates_and_the_other_folds_are_learnt_from(tmp_path):
    given = [{"id": f"i{n:02d}", "split": "train", "fold": n % 3} for n in range(12)]
    given += [{"id": f"v{n}", "split": side} for n, side in enumerate(("validation", "test", "held_out"))]
    written = write_rows(tmp_path / "t", *given)
    report = report_on(written, written.fingerprint)
    seen = []
    for fold in range(3):
        found = sides_on_disk(report, ("train", "validation"), ("id",), tmp_path, fold)
        learnt, watched = (set(found[side].column("id").to_pylist()) for side in ("train", "validation"))
        assert watched == {f"i{n:02d}" for n in range(fold, 12, 3)}
        assert learnt == {f"i{n:02d}" for n in range(12)} - watched
        assert set(read_side(report, "validation", fold)["id"].to_pylist()) == watched
        seen += watched
    # Each example of the training side validates once, and none of another side ever does.
    assert sorted(seen) == [f"i{n:02d}" for n in range(12)]
    assert read_side(report, "test", 0)["id"].to_pylist() == ["v1"]


def test_a_side_without_rows_is_empty(tmp_path):
    written = write_rows(tmp_path / "t", {"id": "a"})
    found = sides_on_disk(report_on(written, written.fingerprint), ("validation",), ("id",), tmp_path)
    assert len(found["validation"]) == 0 and found["validation"].column("id").null_count == 0


def test_a_table_that_is_not_what_the_split_left_is_refused(tmp_path):
    written = write_rows(tmp_path / "t", {"id": "a"})
    with pytest.raises(UserError, match="is not what the split left"):
        sides_on_disk(report_on(written, "0" * 64), ("train",), ("id",), tmp_path)
