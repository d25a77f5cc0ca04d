"""Where the examples are: files, globs and URIs as a list of files."""

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from cluster.errors import UserError
from pipelines.fingerprint import file_fingerprint

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""What can be read; all but Parquet also as .gz."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".npz")

_WILDCARD = re.compile(r"[*\[]|\?(?!\w+=)")
"""In a URI; `?name=` begins its options, as in s3://bucket/folder?region=eu-west-1."""


@dataclass(frozen=True)
class SourceFile:
    """A file of examples."""

    uri: str
    """Path, or URI of an object store."""
    name: str
    """What people and reports call it: its path below the folder that all files share; beside files of this machine,
    one of an object store has its whole URI."""
    size: int
    """Bytes."""

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return "://" not in self.uri

    @property
    def is_compressed(self) -> bool:
        """Whether it is gzipped."""
        return self.uri.lower().endswith(".gz")

    @property
    def suffix(self) -> str:
        """The kind of file, without the compression."""
        return os.path.splitext(self.uri.lower().removesuffix(".gz"))[1]


def is_package(source: str) -> bool:
    """Whether `source` is an installed package rather than files."""
    return source.startswith("package://")


def list_files(sources: tuple[str, ...]) -> tuple[SourceFile, ...]:
    """The files that the sources name, in a stable order, each once.

    Raises UserError with every source that names none, and every file that cannot be read by its kind.
    """
    problems: list[str] = []
    found: dict[str, int] = {}
    for source in sources:
        try:
            matches = _remote(source) if "://" in source else _local(source)
        except (OSError, ValueError, ImportError) as error:
            problems.append(f"{source}: {str(error).splitlines()[0]}")
            continue
        if not matches:
            problems.append(f"{source}: no such file{_nearby(source)}")
        found |= dict(matches)
    names = _names(list(found))
    files = tuple(SourceFile(uri, names[uri], size) for uri, size in sorted(found.items()))
    problems += [f"{file.name}: {problem}" for file in files if (problem := _unreadable_kind(file))]
    if problems:
        raise UserError(
            "dataset.source:\n" + "\n".join(f"  - {problem}" for problem in problems),
            f"Name files of the kinds {', '.join(SUFFIXES)}.",
        )
    return files


def _unreadable_kind(file: SourceFile) -> str:
    if file.suffix in _ARCHIVES:
        return "archives are not read, for their entries may lead anywhere; unpack it yourself"
    if file.suffix in _PICKLES:
        return "pickled objects are never read, for reading them runs their code; write them as JSONL or Parquet"
    if file.suffix not in SUFFIXES:
        return f"files of the kind {file.suffix or 'without a suffix'} are not read"
    if file.suffix == ".parquet" and file.is_compressed:
        return "Parquet compresses itself; unpack the .gz"
    return ""


@contextmanager
def opened(file: SourceFile) -> Iterator[IO[bytes]]:
    """The file's bytes as they are stored."""
    if file.is_local:
        with open(file.uri, "rb") as stream:
            yield stream
        return
    filesystem, path = _filesystem(file.uri)
    with filesystem.open_input_file(path) as stream:
        yield cast("IO[bytes]", stream)


def bytes_fingerprint(file: SourceFile) -> str:
    """SHA-256 of the file's bytes; a text that says so where they cannot be read, which reading then reports."""
    try:
        return _bytes_fingerprint(file)
    except OSError as error:
        return f"unreadable: {error.strerror or type(error).__name__}"


def _bytes_fingerprint(file: SourceFile) -> str:
    if not file.is_local:
        with opened(file) as stream:
            return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
    status = Path(file.uri).stat()
    # A stage asks for the fingerprint several times; only large files are worth remembering.
    if status.st_size > 64 * 2**20:
        return _remembered(file.uri, status.st_size, status.st_mtime_ns, status.st_ino)
    return file_fingerprint(Path(file.uri))


@lru_cache(maxsize=256)
def _remembered(path: str, size: int, changed_ns: int, inode: int) -> str:
    return file_fingerprint(Path(path))


def _local(source: str) -> list[tuple[str, int]]:
    paths = [source] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
    files = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(p for p in Path(path).rglob("*") if p.is_file())
            files += [str(p) for p in inside if SourceFile(str(p), p.name, 1).suffix in SUFFIXES]
        elif os.path.isfile(path):
            files.append(path)
    return [(_plain(path), os.path.getsize(path)) for path in files]


def _plain(path: str) -> str:
    """The path without `.` and `..`, so that a file has one name whatever way leads to it."""
    plain = os.path.abspath(path)
    # Behind a link to a folder, `..` is not the folder that stands before it in the path.
    return plain if os.path.exists(plain) and os.path.samefile(plain, path) else os.path.realpath(path)


def _remote(uri: str) -> list[tuple[str, int]]:
    from pyarrow import fs

    scheme = uri.partition("://")[0]
    wildcard = _WILDCARD.search(uri)
    fixed = uri[: wildcard.start()] if wildcard else uri
    whole = fixed == uri
    filesystem, path = _filesystem(uri if whole else fixed.rpartition("/")[0])
    info = filesystem.get_file_info(path)
    if whole and info.type == fs.FileType.File:
        return [(uri, info.size)]
    inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = [(f"{scheme}://{item.path}", item.size) for item in inside if item.type == fs.FileType.File]
    if whole:
        return [(name, size) for name, size in files if SourceFile(name, name, 1).suffix in SUFFIXES]
    return [(name, size) for name, size in files if _fits(name.split("/"), uri.split("/"))]


def _fits(levels: list[str], pattern: list[str]) -> bool:
    """Whether a path matches, level by level, as local globs do: wildcards stay in one folder, `**` goes deeper.

    Neither stands for a hidden name.
    """
    if not pattern:
        return not levels
    first, *rest = pattern
    if first == "**":
        deeper = next((depth for depth, name in enumerate(levels) if name.startswith(".")), len(levels))
        return any(_fits(levels[depth:], rest) for depth in range(deeper + 1))
    if not levels or (levels[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatch.fnmatchcase(levels[0], first) and _fits(levels[1:], rest)


def _filesystem(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    found: tuple[Any, str] = fs.FileSystem.from_uri(uri)
    return found


def _names(uris: list[str]) -> dict[str, str]:
    """Each file's path below the folder that all share, wherever that lies."""
    local = [uri for uri in uris if "://" not in uri]
    if local and len(local) < len(uris):
        # They share no folder: a local file's name would say where this machine keeps it.
        return {uri: uri for uri in uris} | _names(local)
    folders = {uri.rpartition("/")[0] for uri in uris}
    if len(folders) == 1:
        return {uri: uri.rpartition("/")[2] for uri in uris}
    shared = 0
    for level in zip(*(folder.split("/") for folder in folders), strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return {uri: "/".join(uri.split("/")[shared:]) for uri in uris}


def _nearby(source: str) -> str:
    """What stands in the folder instead."""
    folder = Path(source).parent
    if "://" in source or not folder.is_dir():
        return "" if "://" in source else f" (there is no folder {folder})"
    there = sorted(p.name for p in folder.iterdir() if SourceFile(p.name, p.name, 1).suffix in SUFFIXES)
    return f"; there are {', '.join(there[:5])}" if there else ""
