"""Sides of the split as files."""

import pytest

from cluster.errors import UserError
from pipelines.data.versioned.sides_on_disk import sides_on_disk
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


def test_a_side_without_rows_is_empty(tmp_path):
    written = write_rows(tmp_path / "t", {"id": "a"})
    found = sides_on_disk(report_on(written, written.fingerprint), ("validation",), ("id",), tmp_path)
    assert len(found["validation"]) == 0 and found["validation"].column("id").null_count == 0


def test_a_table_that_is_not_what_the_split_left_is_refused(tmp_path):
    written = write_rows(tmp_path / "t", {"id": "a"})
    with pytest.raises(UserError, match="is not what the split left"):
        sides_on_disk(report_on(written, "0" * 64), ("train",), ("id",), tmp_path)
