"""A tokenizer's files, for processes on nodes that lack the driver's folder."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ray

PATTERNS = ("*.json", "*.jinja", "*.model", "*.txt")
"""Names of what tokenizers are loaded from."""


def files_of(folder: str | Path) -> dict[str, bytes]:
    """Name -> content."""
    return {path.name: path.read_bytes() for pattern in PATTERNS for path in Path(folder).glob(pattern)}


_UNPACKED: "dict[ray.ObjectRef[dict[str, bytes]], tempfile.TemporaryDirectory[str]]" = {}
"""Folders that go with this process."""


def folder_here(folder: str, files: "ray.ObjectRef[dict[str, bytes]]") -> str:
    """The folder where this machine has it, else one of this process with the driver's files."""
    import ray

    if Path(folder).is_dir():
        return folder
    if files not in _UNPACKED:
        _UNPACKED[files] = tempfile.TemporaryDirectory(prefix="sluice-tokenizer-")
        for name, content in ray.get(files).items():
            Path(_UNPACKED[files].name, name).write_bytes(content)
    return _UNPACKED[files].name
