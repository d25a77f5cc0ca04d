"""Checkpoints that are complete, or not there.

Each worker writes its own files and then, last, a manifest with their SHA-256. A checkpoint counts when the
manifest of every worker exists; before anything is loaded the hashes are compared. Object stores have no
rename, so this holds there too.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.fingerprint import file_fingerprint

MANIFEST_VERSION = 1


class CheckpointStore:
    """The checkpoints of one run, below an address in storage."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files: Any
        self._root: str
        self._files, self._root = (
            fs.FileSystem.from_uri(address) if "://" in address else (fs.LocalFileSystem(), address)
        )

    def save(self, step: int, folder: Path, rank: int, world: int) -> None:
        """Keep one worker's files of a checkpoint, its manifest last."""
        target = self._folder(step)
        self._files.create_dir(target, recursive=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = {}
        for path in files:
            name = str(path.relative_to(folder))
            hashes[name] = {"sha256": file_fingerprint(path), "bytes": path.stat().st_size}
            self._files.create_dir(str(Path(target, name).parent), recursive=True)
            fs.copy_files(str(path), f"{target}/{name}", destination_filesystem=self._files)
        manifest = {"version": MANIFEST_VERSION, "step": step, "rank": rank, "world": world, "files": hashes}
        with self._files.open_output_stream(f"{target}/manifest-{rank}.json") as stream:
            stream.write(json.dumps(manifest).encode())

    def complete(self) -> list[int]:
        """Steps of the checkpoints that every worker finished, oldest first."""
        selector = fs.FileSelector(self._root, allow_not_found=True)
        found = []
        for entry in self._files.get_file_info(selector):
            match = re.fullmatch(r"step-(\d+)", entry.base_name)
            if match and len(manifests := self._manifests(int(match[1]))) and len(manifests) == manifests[0]["world"]:
                found.append(int(match[1]))
        return sorted(found)

    def world(self, step: int) -> int:
        """Workers that wrote the checkpoint."""
        return int(self._manifests(step)[0]["world"])

    def verify(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files, or None."""
        with tempfile.TemporaryDirectory() as scratch:
            local = self._local(step, Path(scratch))
            for manifest in self._manifests(step):
                for name, expected in manifest["files"].items():
                    path = local / name
                    if not path.is_file():
                        return f"{name} is missing"
                    if path.stat().st_size != expected["bytes"]:
                        return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
                    if file_fingerprint(path) != expected["sha256"]:
                        return f"{name} has other content than was written"
        return None

    def newest_whole(self) -> tuple[int | None, dict[int, str]]:
        """The newest checkpoint whose files are as they were written, and why newer ones were set aside."""
        aside: dict[int, str] = {}
        for step in reversed(self.complete()):
            problem = self.verify(step)
            if problem is None:
                return step, aside
            aside[step] = problem
            self._set_aside(step)
        return None, aside

    def fetch(self, step: int, scratch: Path) -> Path:
        """A local folder with the checkpoint: its own where storage is local, else a copy in `scratch`."""
        return self._local(step, scratch)

    def keep_only(self, steps: set[int]) -> None:
        """Delete every other complete checkpoint."""
        for step in set(self.complete()) - steps:
            self._files.delete_dir(self._folder(step))

    def clear(self) -> None:
        """Delete everything."""
        if self._files.get_file_info(self._root).type is not fs.FileType.NotFound:
            self._files.delete_dir(self._root)

    def _folder(self, step: int) -> str:
        return f"{self._root}/step-{step:08d}"

    def _manifests(self, step: int) -> list[dict[str, Any]]:
        found = []
        for entry in self._files.get_file_info(fs.FileSelector(self._folder(step), allow_not_found=True)):
            if re.fullmatch(r"manifest-\d+\.json", entry.base_name):
                with self._files.open_input_stream(entry.path) as stream:
                    try:
                        found.append(json.loads(stream.read()))
                    except ValueError:
                        # Cut off in the middle: this worker did not finish.
                        continue
        return found

    def _local(self, step: int, scratch: Path) -> Path:
        if isinstance(self._files, fs.LocalFileSystem):
            return Path(self._folder(step))
        target = scratch / f"step-{step:08d}"
        if not target.exists():
            fs.copy_files(self._folder(step), str(target), source_filesystem=self._files)
        return target

    def _set_aside(self, step: int) -> None:
        """Out of the way but not deleted: a person may want to see what happened."""
        target = f"{self._root}/damaged-{step:08d}"
        if isinstance(self._files, fs.LocalFileSystem):
            shutil.rmtree(target, ignore_errors=True)
            Path(self._folder(step)).rename(target)
        else:
            fs.copy_files(self._folder(step), target, source_filesystem=self._files, destination_filesystem=self._files)
            self._files.delete_dir(self._folder(step))
