"""Files of named fragments: one-dimensional pieces of tensors, each with its place in the whole.

The format is safetensors, written a fragment at a time: nothing is pickled, and no second copy of a worker's
state stands in memory. Any number of workers reads what any other number wrote: a piece is put together from the
fragments that overlap with it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
"""What safetensors calls them."""


@dataclass(frozen=True)
class Fragment:
    """A piece of something."""

    kind: str
    """What it is of the thing: its weight, a moment."""
    name: str
    """Of the thing: a parameter's."""
    start: int
    """Its first element's place in the whole, flattened."""
    values: Tensor
    """One-dimensional; may be a view of what is in use."""

    @property
    def key(self) -> str:
        """Its name in a file."""
        return f"{self.kind}/{self.start}/{self.name}"


def write_fragments(path: Path, fragments: Sequence[Fragment]) -> None:
    """Write a safetensors file; of values on a device, one fragment at a time comes to memory."""
    header: dict[str, Any] = {}
    offset = 0
    for fragment in fragments:
        size = fragment.values.numel() * fragment.values.element_size()
        header[fragment.key] = {
            "dtype": DTYPES[fragment.values.dtype],
            "shape": [fragment.values.numel()],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    # Data begins at a multiple of eight.
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for fragment in fragments:
            bytes_of: Any = fragment.values.detach().cpu().contiguous().view(torch.uint8).numpy()
            stream.write(memoryview(bytes_of))


class FragmentFiles:
    """What stands in several files, read in the pieces that are asked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        from safetensors import safe_open

        self._found: dict[tuple[str, str], list[tuple[int, int, Any]]] = {}
        for path in paths:
            file: Any = safe_open(path, "pt")
            for key in file.keys():  # noqa: SIM118 - the file is no mapping
                kind, start, name = key.split("/", 2)
                part = file.get_slice(key)
                self._found.setdefault((kind, name), []).append((int(start), part.get_shape()[0], part))

    def kinds(self, name: str) -> list[str]:
        """What the files hold of `name`."""
        return sorted(kind for kind, found in self._found if found == name)

    def read(self, kind: str, name: str, start: int, target: Tensor) -> bool:
        """Fill `target` with the elements from `start` on; whether all of them were there."""
        filled = 0
        for begins, length, part in self._found.get((kind, name), ()):
            low, high = max(start, begins), min(start + target.numel(), begins + length)
            if low < high:
                target[low - start : high - start].copy_(part[low - begins : high - begins])
                filled += high - low
        return filled == target.numel()

    def first(self, kind: str, name: str) -> Tensor | None:
        """The whole of any one fragment: of what is the same in all of them."""
        found = self._found.get((kind, name))
        return found[0][2][:] if found else None
