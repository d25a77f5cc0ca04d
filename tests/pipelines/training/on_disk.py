"""Rows as the split has them, in files: what bins are made of."""

import pyarrow as pa

from pipelines.data.spool import Spool, SpoolWriter


def batch_of(rows):
    """(id, messages) or (id, messages, rejected) rows as a record batch."""
    names = ("id", "messages", "rejected")[: len(rows[0])]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names)


def on_disk(**sides):
    """What `store_bins` asks for the rows of each side: a function of the folder that they go to."""

    def write(folder):
        found = {}
        for side, rows in sides.items():
            batch = batch_of(rows)
            with SpoolWriter(folder / side, batch.schema) as writer:
                for start in range(0, len(rows), 20):
                    writer.add(batch.slice(start, 20))
            found[side] = Spool(folder / side)
        return found

    return write
