"""Small tables of a split, for what reads them."""

import json

import pyarrow as pa

from pipelines.data.versioned.table import schema, write_table


def rows(*given):
    """Batches of rows: what is not given is made up, or null."""
    plain = [
        {
            "id": row["id"],
            "messages": json.dumps([{"role": "user", "content": row["id"]}, {"role": "assistant", "content": "yes"}]),
            "cluster": row["id"],
            "meta": '{"columns": {}, "declared": []}',
            "split": "train",
        }
        | row
        for row in given
    ]
    return pa.Table.from_pylist(plain, schema=schema()).to_batches(max_chunksize=3)


def write_rows(uri, *given, policy="p", **options):
    """A version of the table at `uri`, with these rows (dicts); what `write_table` gives back."""
    return write_table(str(uri), rows(*given), policy, **options)
