"""The folder of an export: whole or not there, never over anything else, and able to say whether it changed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.fingerprint import file_fingerprint
from pipelines.models.files import RECORD, read_json

OTHERWISE = "Name another folder with --to, or move this one away."


def standing_export(folder: Path, export: str) -> dict[str, Any] | None:
    """The record of the export with this fingerprint, whole, in `folder`; None when nothing is there.

    Raises UserError for anything else that is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    if record.get("export") != export:
        raise UserError(f"{folder} holds something else; it is left as it is.", OTHERWISE)
    for name, known in record["files"].items():
        if not (folder / name).is_file() or file_fingerprint(folder / name) != known:
            raise UserError(f"{folder} holds this export, and its {name} is missing or changed.", OTHERWISE)
    return record


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when all goes well, and is gone otherwise.

    Raises UserError when `folder` cannot be written, or something came to stand there meanwhile.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.", "Name another folder with --to.") from None
    try:
        yield scratch
        _open_to_others(scratch)
        try:
            # Over an empty folder, or none.
            scratch.rename(folder)
        except OSError as error:
            raise UserError(f"{folder} could not be made: {error.strerror}; nothing was written.", OTHERWISE) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record into `folder`, last: it names the hash of every other file."""
    files = {path.name: file_fingerprint(path) for path in sorted(folder.iterdir()) if path.name != RECORD}
    (folder / RECORD).write_text(json.dumps(record | {"files": files}, indent=2), encoding="utf-8")


def _open_to_others(folder: Path) -> None:
    """As files that are written in the open: a scratch folder and weights are their owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)
