"""Which bins each step learnt from, as the workers read them: kept in every checkpoint.

What the newest complete checkpoint holds is the committed timeline: steps that a crash undid are not in it.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from pipelines.training.fragments import Fragment, FragmentFiles, write_fragments

FILE = "timeline.safetensors"


class Timeline:
    """The bins of each step since the run began."""

    def __init__(self, steps: Iterable[Iterable[int]] = ()) -> None:
        self._bins, self._counts = array("i"), array("i")
        for bins in steps:
            self.add(bins)

    def add(self, bins: Iterable[int]) -> None:
        """What the next step learnt from."""
        before = len(self._bins)
        self._bins.extend(bins)
        self._counts.append(len(self._bins) - before)

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for count in self._counts:
            yield list(self._bins[start : start + count])
            start += count

    def visits(self, bins: int) -> tuple[int, int]:
        """How often the least and the most visited of so many bins were learnt from."""
        counts = Counter(self._bins)
        seen = [counts[number] for number in range(bins)]
        return min(seen, default=0), max(seen, default=0)

    def write(self, folder: Path) -> None:
        """Into a checkpoint's folder."""
        columns = {"bins": self._bins, "counts": self._counts}
        write_fragments(
            folder / FILE,
            [
                Fragment("timeline", name, 0, torch.tensor(values, dtype=torch.int32))
                for name, values in columns.items()
            ],
        )

    @classmethod
    def read(cls, folder: Path) -> "Timeline":
        """From a checkpoint's folder."""
        files = FragmentFiles([folder / FILE])
        timeline = cls()
        for name, values in (("bins", timeline._bins), ("counts", timeline._counts)):
            column = files.first("timeline", name)
            assert column is not None
            values.extend(column.tolist())
        return timeline
