"""Sides of the split as files of this machine: read as a stream, never held."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pipelines.data.spool import Spool, SpoolWriter
from pipelines.data.versioned.table import Side, on_side, read_verified, schema
from pipelines.gates import Report


def sides_on_disk(
    report: Report, sides: Sequence[Side], columns: Sequence[str], folder: Path, fold: int | None = None
) -> dict[Side, Spool]:
    """These columns of these sides of the split that `report` tells of, in files in `folder`; rows in no order.

    With `fold`, training and validation are parts of the training side (see `on_side`). The table is read once.
    Raises UserError when it is gone or is not what the split left.
    """
    import pyarrow as pa

    wanted = pa.schema([schema().field(name) for name in columns])
    paths = {side: folder / f"{side}.rows.arrow" for side in sides}
    with ExitStack() as stack:
        writers = {side: stack.enter_context(SpoolWriter(path, wanted)) for side, path in paths.items()}
        for batch in read_verified(report):
            for side, writer in writers.items():
                writer.add(batch.filter(on_side(batch, side, fold)).select(list(columns)))
    return {side: Spool(path) for side, path in paths.items()}
