import pyarrow as pa
import pytest

from cluster.errors import StageFailed
from pipelines.data.packing import drawn
from pipelines.data.versioned.ledger import (
    CHOICE,
    STOPPING,
    WEIGHTS,
    check_fits,
    problem_of,
    record_bins,
    record_choice,
    record_fit,
)
from pipelines.gates import Report
from pipelines.workspace import Workspace
from tests.pipelines.data.small_table import write_rows


@pytest.fixture
def table(tmp_path):
    sides = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2 + ["held_out"]
    return write_rows(tmp_path / "split", *({"id": f"i{n}", "split": side} for n, side in enumerate(sides))).uri


def test_a_fit_is_written_down_once_with_the_side_that_the_table_says(workspace: Workspace, table):
    for _ in range(2):
        record_fit(workspace, "r", table, 0, WEIGHTS, "train", ["i0", "i3", "i1"])
    record_fit(workspace, "r", table, 0, STOPPING, "validation", pa.array(["i6", "i7"]))
    fits = check_fits(workspace, table, 0)
    assert [(fit.transform, fit.side, fit.rows, fit.problem) for fit in fits] == [
        (WEIGHTS, "train", 3, None),
        (STOPPING, "validation", 2, None),
    ]
    assert check_fits(workspace, table, 1) == []


@pytest.mark.parametrize(
    ("ids", "side"),
    [(["i0", "i8"], "train, test"), (["i9"], "test"), (["i0", "i10"], "train, held_out"), (["x"], "not in the split")],
)
def test_what_saw_other_rows_than_it_said_is_on_record_and_goes_no_further(workspace, table, ids, side):
    with pytest.raises(StageFailed, match=f"was fitted to rows of {side}, not of train alone"):
        record_fit(workspace, "r", table, 0, WEIGHTS, "train", ids)
    (fit,) = check_fits(workspace, table)
    assert fit.side == side and fit.problem == f"{WEIGHTS} saw {side}; it may see train alone."


@pytest.mark.parametrize(
    ("transform", "side", "wrong"),
    [
        (WEIGHTS, "train", False),
        (WEIGHTS, "validation", True),
        (STOPPING, "validation", False),
        (STOPPING, "train", True),
        ("vocabulary", "train", False),
        ("vocabulary", "test", True),
    ],
)
def test_each_transform_sees_one_side_and_none_the_test(transform, side, wrong):
    assert bool(problem_of(transform, side)) == wrong


@pytest.fixture
def bins(tmp_path):
    """Address of bins with these rows of the table."""
    for side, ids in (("train", [["i0", "i1"], ["i2"]]), ("validation", [["i6"], ["i7"]])):
        table = pa.table({"ids": pa.array(ids, pa.list_(pa.string()))})
        with pa.OSFile(str(tmp_path / f"{side}.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return str(tmp_path)


def test_the_rows_of_a_training_are_those_in_its_bins(workspace, table, bins):
    report = Report.model_construct(produced={"table": table, "version": "0"})
    record_bins(workspace, "r", report, bins)
    assert [(fit.side, fit.rows) for fit in check_fits(workspace, table, 0)] == [("train", 3), ("validation", 2)]


def test_hyper_parameters_are_fitted_to_the_rows_that_trials_were_compared_on(workspace, table, bins):
    report = Report.model_construct(produced={"table": table, "version": "0"})
    # Two seeds that draw different bins, as validation does.
    seeds = [next(seed for seed in range(99) if drawn(2, seed, 1) == [number]) for number in (0, 1)]
    for seed in seeds:
        record_choice(workspace, "r", report, bins, seed, 1)
    fits = check_fits(workspace, table, 0)
    assert [(fit.transform, fit.side, fit.rows, fit.problem) for fit in fits] == [(CHOICE, "validation", 1, None)] * 2
    assert "may see validation alone" in problem_of(CHOICE, "test") and problem_of(CHOICE, "train")
