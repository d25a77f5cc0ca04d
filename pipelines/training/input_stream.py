"""The input stream: a side's rows encoded block by block, ordered by id, here or in Ray Data."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.spool import Spool
from pipelines.recipe import Train
from pipelines.training.encoding import Block, encode_block

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.workspace import Workspace

ROWS_HERE = 50_000
"""Sides of up to this many rows are encoded in this process: starting others would take longer."""

BLOCK_BYTES = 256 * 2**10
"""Text of a block, about: a second of work for one process, and some megabytes encoded."""


def encoded_blocks(rows: Spool, base: Path, train: Train, workspace: "Workspace") -> Generator[Block, None, None]:
    """The rows of a side (see `read_columns`) encoded by the tokenizer in `base`, block after block.

    A block is held at a time here, and some for each task of Ray Data; the examples and their order are the same
    whoever encodes and whatever the size of a block. Raises UserError for the first row that `encode_block` refuses.
    """
    if len(rows) <= ROWS_HERE:
        from pipelines.models.load import load_tokenizer

        tokenizer = load_tokenizer(base)
        yield from (encode_block(tokenizer, block, train) for block in row_blocks(rows))
        return
    from pipelines.training.encoding_tasks import encode_in_tasks

    yield from encode_in_tasks(row_blocks(rows), base, train, workspace)


def row_blocks(rows: Spool) -> "Iterator[pa.RecordBatch]":
    """The rows ordered by id, some BLOCK_BYTES of conversations at a time."""
    import pyarrow.compute as pc

    order = rows.order("id")
    sizes = pc.binary_length(rows.column("messages")).to_numpy()
    for numbers in np.split(order, cuts(sizes[order], BLOCK_BYTES)):
        yield rows.take(numbers)


def cuts(sizes: "NDArray[np.integer]", most: int) -> "NDArray[np.int64]":
    """Where to cut a row of sizes so that each part's sum exceeds `most` by less than one size."""
    parts = np.cumsum(sizes, dtype=np.int64) // most
    return np.flatnonzero(np.diff(parts)) + 1
