"""Checkpoints that are complete, or not there.

Each worker keeps its own files and then, last, a manifest with their SHA-256. A checkpoint counts when the
manifest of every worker of one attempt exists; before anything is loaded the hashes are compared. Object stores
have no rename, so this holds there too.
"""

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.fingerprint import file_fingerprint

MANIFEST_VERSION = 2
"""Raise it when what stands in a checkpoint changes: older ones are refused."""

UNFINISHED = "unfinished"
"""Below the run's folder, where storage is local: what is being written."""


class CheckpointStore:
    """The checkpoints of one run, below an address in storage."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files: Any
        self._root: str
        self._files, self._root = (
            fs.FileSystem.from_uri(address) if "://" in address else (fs.LocalFileSystem(), address)
        )

    @property
    def local(self) -> bool:
        """Whether storage is a folder that this process sees."""
        return isinstance(self._files, fs.LocalFileSystem)

    def scratch(self, step: int, rank: int) -> Path:
        """A new folder for one worker's files: on the storage's own disk where that is local."""
        if not self.local:
            return Path(tempfile.mkdtemp(prefix=f"step-{step:08d}-{rank}-"))
        folder = Path(self._root, UNFINISHED, f"step-{step:08d}-{rank}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def save(self, step: int, folder: Path, rank: int, world: int, attempt: str = "") -> None:
        """Keep one worker's files of a checkpoint, its manifest last; then the folder that `scratch` gave goes.

        May be called again when it failed. `attempt` is the same on all workers, and another after each restart:
        the manifests of two attempts are no checkpoint together.
        """
        target = self._folder(step)
        self._files.create_dir(target, recursive=True)
        hashes = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(path.relative_to(folder))
            hashes[name] = {"sha256": file_fingerprint(path), "bytes": path.stat().st_size}
        for name in hashes:
            self._files.create_dir(str(Path(target, name).parent), recursive=True)
            self._copy(folder / name, f"{target}/{name}")
        manifest = {"version": MANIFEST_VERSION, "step": step, "rank": rank, "world": world, "attempt": attempt}
        with self._files.open_output_stream(f"{target}/manifest-{rank}.json") as stream:
            stream.write(json.dumps(manifest | {"files": hashes}).encode())
        if self._is_scratch(folder):
            shutil.rmtree(folder, ignore_errors=True)

    def complete(self) -> list[int]:
        """Steps of the checkpoints that every worker finished, oldest first."""
        return [step for step in self._steps() if self.is_complete(step)]

    def is_complete(self, step: int) -> bool:
        """Whether every worker of one attempt has written its manifest."""
        manifests = self._manifests(step)
        of_one = {(m["version"], m["world"], m.get("attempt")) for m in manifests}
        return (
            len(of_one) == 1 and manifests[0]["version"] == MANIFEST_VERSION and manifests[0]["world"] == len(manifests)
        )

    def outdated(self) -> bool:
        """Whether an earlier version of this program wrote checkpoints here."""
        return any(m["version"] < MANIFEST_VERSION for step in self._steps() for m in self._manifests(step))

    def files(self, step: int) -> dict[str, dict[str, Any]]:
        """Name, SHA-256 and bytes of each of a checkpoint's files."""
        return {name: facts for manifest in self._manifests(step) for name, facts in manifest["files"].items()}

    def verify(self, step: int, folder: Path, part: int = 0, parts: int = 1) -> str | None:
        """What is wrong with a checkpoint's files in a local folder, or None.

        Of several workers that see the same folder each looks at every `parts`-th file.
        """
        for number, (name, expected) in enumerate(sorted(self.files(step).items())):
            if number % parts != part:
                continue
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if file_fingerprint(path) != expected["sha256"]:
                return f"{name} has other content than was written"
        return None

    def fetch(self, step: int, scratch: Path) -> Path:
        """A local folder with the checkpoint: its own where storage is local, else a copy in `scratch`."""
        if self.local:
            return Path(self._folder(step))
        target = scratch / f"step-{step:08d}"
        fs.copy_files(self._folder(step), str(target), source_filesystem=self._files)
        return target

    def set_aside(self, step: int) -> None:
        """Out of the way but not deleted: a person may want to see what happened."""
        target = f"{self._root}/damaged-{step:08d}"
        if self.local:
            shutil.rmtree(target, ignore_errors=True)
            Path(self._folder(step)).rename(target)
        else:
            fs.copy_files(self._folder(step), target, source_filesystem=self._files, destination_filesystem=self._files)
            self._files.delete_dir(self._folder(step))

    def keep_only(self, steps: set[int]) -> None:
        """Delete every other complete checkpoint."""
        for step in set(self.complete()) - steps:
            self._delete(step)

    def discard_unfinished(self) -> None:
        """Delete what a worker that died left half done; only while nobody saves."""
        for step in set(self._steps()) - set(self.complete()):
            self._delete(step)
        if self.local:
            shutil.rmtree(Path(self._root, UNFINISHED), ignore_errors=True)

    def clear(self) -> None:
        """Delete everything."""
        if self._files.get_file_info(self._root).type is not fs.FileType.NotFound:
            self._files.delete_dir(self._root)

    def _delete(self, step: int) -> None:
        # The manifests first: a deletion that is cut off must not leave what looks complete.
        for entry in self._files.get_file_info(fs.FileSelector(self._folder(step), allow_not_found=True)):
            if _is_manifest(entry.base_name):
                self._files.delete_file(entry.path)
        self._files.delete_dir(self._folder(step))

    def _copy(self, path: Path, target: str) -> None:
        if self.local and self._is_scratch(path):
            Path(target).unlink(missing_ok=True)
            # A second name for the file, where the file system has such a thing.
            with suppress(OSError):
                os.link(path, target)
                return
        fs.copy_files(str(path), target, destination_filesystem=self._files)

    def _is_scratch(self, path: Path) -> bool:
        return not self.local or path.is_relative_to(Path(self._root, UNFINISHED))

    def _folder(self, step: int) -> str:
        return f"{self._root}/step-{step:08d}"

    def _steps(self) -> list[int]:
        selector = fs.FileSelector(self._root, allow_not_found=True)
        names = [entry.base_name for entry in self._files.get_file_info(selector)]
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))

    def _manifests(self, step: int) -> list[dict[str, Any]]:
        found = []
        for entry in self._files.get_file_info(fs.FileSelector(self._folder(step), allow_not_found=True)):
            # Cut off in the middle: this worker did not finish. Gone: another one tidies up at this moment.
            with suppress(ValueError, FileNotFoundError):
                if _is_manifest(entry.base_name):
                    with self._files.open_input_stream(entry.path) as stream:
                        found.append(json.loads(stream.read()))
        return found


def _is_manifest(name: str) -> bool:
    return re.fullmatch(r"manifest-\d+\.json", name) is not None
