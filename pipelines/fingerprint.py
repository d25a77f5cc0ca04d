"""Content hashes: what a stage read, in 64 hexadecimal digits."""

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of `parts`: equal content, equal fingerprint."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and bytes of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint([(str(path.relative_to(folder)), file_fingerprint(path)) for path in files])


def short(value: str) -> str:
    """The first twelve digits: for people and for names."""
    return value[:12]
