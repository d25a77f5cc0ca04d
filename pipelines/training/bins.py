"""Bins as workers read them: by number, from a memory map.

A bin is one row for the model: the tokens of one or more examples, end to end. Every worker opens the
same file and reads its own bins, so any number of workers sees the same bins in the same steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pipelines.data.packing import shuffled
from pipelines.recipe import Train


@dataclass(frozen=True)
class Bin:
    """One row for the model."""

    tokens: list[int]
    supervised: list[int]
    lengths: list[int]
    ids: list[str]


PADDING_BIN = Bin([0, 0], [0, 0], [2], [])
"""Weighs nothing: fills a step so that every worker runs equally often."""


class BinFile:
    """The bins of one side, read by number."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.taught: list[int] = self._table["taught"].to_pylist()
        """Supervised tokens of each bin."""
        self.sizes: list[int] = pc.list_value_length(self._table["tokens"]).to_pylist()
        """Tokens of each bin."""
        self.examples: list[int] = pc.list_value_length(self._table["ids"]).to_pylist()
        """Examples (or preference pairs) of each bin."""
        self.first_example: list[int] = [0, *accumulate(self.examples)][:-1]
        """Examples before each bin."""

    def __len__(self) -> int:
        return len(self.taught)

    def read(self, number: int | None) -> Bin:
        """A bin; None gives one that weighs nothing."""
        if number is None:
            return PADDING_BIN
        row = self._table.slice(number, 1).to_pylist()[0]
        return Bin(row["tokens"], row["supervised"], row["lengths"], row["ids"])


def step_bins(order: Sequence[int], sizes: Sequence[int], step: int, batch: int) -> list[int | None]:
    """The bins of one optimiser step, longest first, filled to `batch` with None.

    Longest first puts bins of like length into the same forward pass, whatever the number of workers.
    """
    numbers = sorted(order[step * batch : (step + 1) * batch], key=lambda i: (-sizes[i], i))
    return [*numbers, *[None] * (batch - len(numbers))]


def micro_batches(numbers: Sequence[int | None], rank: int, world: int, width: int) -> Iterator[list[int | None]]:
    """One worker's rows of a step, `width` at a time: neighbours in length go to different workers."""
    mine = numbers[rank::world]
    for start in range(0, len(mine), width):
        yield list(mine[start : start + width])


def padding_share(file: BinFile, train: Train, seed: int, workers: int, *, seq2seq: bool = False) -> float:
    """Share of the places in the first epoch's forward passes that hold no token of an example.

    The bins of a pass stand end to end: only what fills the last step up to its bins is padding. An encoder-decoder's
    sources and targets are padded, each to the longest of the pass.
    """
    order, batch, places = shuffled(len(file), seed, 0), train.global_batch_size, 0
    for step in range(-(-len(order) // batch)):
        numbers = step_bins(order, file.sizes, step, batch)
        for rank in range(workers):
            for micro in micro_batches(numbers, rank, workers, train.sequences_per_pass):
                sizes = [len(PADDING_BIN.tokens) if number is None else file.sizes[number] for number in micro]
                if not seq2seq:
                    places += sum(sizes)
                    continue
                targets = [0 if number is None else file.taught[number] for number in micro]
                sources = [size - target for size, target in zip(sizes, targets, strict=True)]
                places += (max(sources) + max(targets)) * len(micro)
    return 1 - sum(file.sizes) / places if places else 0.0
