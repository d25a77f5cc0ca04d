"""Rows on disk."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.spool import Spool, SpoolWriter

SCHEMA = pa.schema({"name": pa.string(), "tokens": pa.list_(pa.int32())})


def spooled(folder, rows, size):
    with SpoolWriter(Path(folder, "rows"), SCHEMA) as writer:
        for start in range(0, len(rows) + 1, size):
            writer.add(pa.RecordBatch.from_pylist(rows[start : start + size], SCHEMA))
    return Spool(Path(folder, "rows"))


@given(
    st.lists(st.fixed_dictionaries({"name": st.text(max_size=3), "tokens": st.lists(st.integers(0, 9), max_size=3)})),
    st.integers(1, 9),
    st.data(),
)
def test_rows_are_read_back_by_number_in_any_order(rows, size, data):
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)) if rows else []
    with tempfile.TemporaryDirectory() as folder:
        spool = spooled(folder, rows, size)
        assert len(spool) == len(rows)
        assert spool.take(np.array(numbers, np.int64)).to_pylist() == [rows[number] for number in numbers]
        assert spool.column("tokens").to_pylist() == [row["tokens"] for row in rows]
        ordered = spool.take(spool.order("name"))["name"].to_pylist()
        assert ordered == sorted(row["name"] for row in rows)
