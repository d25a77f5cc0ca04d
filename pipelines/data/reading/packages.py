"""Examples that stand in installed packages: `package://NAME#READER`. Parsed, never imported."""

import ast
import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.data.reading.formats import RawRow
from pipelines.fingerprint import file_fingerprint, fingerprint
from pipelines.section import nearest

READER_VERSION = 1
"""Enters the fingerprint: raise it when a reader's rows change."""

SUMMARY_WORDS = (4, 30)
BODY_WORDS = (15, 120)

_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Package:
    """An installed distribution (or Python's own library) and what reads it."""

    name: str
    reader: str
    version: str
    authors: str
    folder: Path
    """Folder that the paths of `files` start from."""
    files: tuple[str, ...]
    """The files that the reader parses, sorted."""

    def fingerprint(self) -> str:
        """Of the version, the reader and every byte that it parses."""
        contents = [(file, file_fingerprint(self.folder / file)) for file in self.files]
        return fingerprint(self.name, self.version, self.reader, READER_VERSION, contents)

    def rows(self) -> Iterator[tuple[str, RawRow]]:
        """(file, row) of every example, in the files' order."""
        for file in self.files:
            for number, row in enumerate(READERS[self.reader].read(self, file), 1):
                yield f"{self.name}/{file}", RawRow(number, row)


@dataclass(frozen=True)
class Reader:
    """How examples are read from one of a package's files."""

    suffixes: tuple[str, ...]
    """Kinds of the files it parses."""
    below: str
    """Part of the path that they stand below; nothing: anywhere."""
    read: Callable[[Package, str], Iterator[dict[str, Any]]]


def find_package(source: str) -> Package:
    """The package that `package://NAME#READER` names. Raises UserError with the known readers and distributions."""
    name, _, reader_name = source.removeprefix("package://").partition("#")
    if reader_name not in READERS:
        raise UserError(
            f"{source}: {reader_name or 'no reader'} is no known reader{nearest(reader_name, READERS)}.",
            f"Write package://NAME#READER with one of the readers {', '.join(READERS)}.",
        )
    reader = READERS[reader_name]
    if name == "python":
        folder = Path(sysconfig.get_path("stdlib"))
        version, authors = platform.python_version(), "the Python developers"
        paths = _library_files(folder, reader)
    else:
        try:
            distribution = importlib.metadata.distribution(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            raise UserError(
                f"{source}: no distribution {name or 'without a name'} is installed{_nearest_distribution(name)}.",
                f"Install it (`pip install {name}`), or name an installed one.",
            ) from None
        folder = Path(str(distribution.locate_file("")))
        version = distribution.version
        # What RECORD lists, below the package's own place: an entry with `..` leads elsewhere.
        listed = [str(path) for path in distribution.files or () if ".." not in path.parts]
        paths = [path for path in listed if Path(path).suffix in reader.suffixes]
        named = distribution.metadata.json.get("author", "")
        authors = f"{named} (as {name} names its authors)" if named else f"the authors of {name}"
    files = tuple(sorted(path for path in paths if _wanted(path, reader)))
    if not files:
        raise UserError(f"{source}: {name} {version} has nothing that {reader_name} reads.", "Name another package.")
    return Package(name, reader_name, version, authors, folder, files)


def _library_files(folder: Path, reader: Reader) -> list[str]:
    """Paths below `folder`, without walking through what is installed beside the library."""
    paths = []
    for place, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if name not in _NOT_THE_LIBRARY]
        paths += [
            os.path.relpath(os.path.join(place, file), folder) for file in files if file.endswith(reader.suffixes)
        ]
    return paths


def _wanted(path: str, reader: Reader) -> bool:
    parts = Path(path).parts
    return not _NOT_THE_LIBRARY.intersection(parts) and (not reader.below or reader.below in path.replace("\\", "/"))


def _nearest_distribution(name: str) -> str:
    installed = {str(found.metadata["Name"]) for found in importlib.metadata.distributions() if found.metadata["Name"]}
    return nearest(name, sorted(installed))


def docstring_examples(source: bytes) -> Iterator[tuple[str, str, str]]:
    """(name, summary, body) of each docstring that is a one-line summary, a blank line and a body (PEP 257).

    Summaries of 4 to 30 words and bodies of 15 to 120. Code that does not parse yields nothing: some
    distributions ship templates and other Pythons' syntax.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in _documented(tree):
        summary, _, rest = (ast.get_docstring(node) or "").partition("\n")
        if not rest.startswith("\n"):
            continue
        summary, body = summary.strip(), rest.strip()
        name = "" if isinstance(node, ast.Module) else node.name
        if (
            SUMMARY_WORDS[0] <= len(summary.split()) <= SUMMARY_WORDS[1]
            and BODY_WORDS[0] <= len(body.split()) <= BODY_WORDS[1]
        ):
            yield name, summary, body


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(tree: ast.Module) -> Iterator[_Documented]:
    """The nodes that may have a docstring; statements alone are walked, which is ten times less than every node."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Documented):
            yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                waiting.extend(inner)


def _docstrings(package: Package, file: str) -> Iterator[dict[str, Any]]:
    """The body of a docstring asks for its summary."""
    module = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
    for name, summary, body in docstring_examples((package.folder / file).read_bytes()):
        yield {
            "prompt": body,
            "completion": summary,
            "module": module,
            "object": name,
            "group": module,
            "source": f"{package.name} {package.version}: {module}",
            "collector": f"the docstrings reader, from the installed {package.name} {package.version}",
            "annotator": f"the authors of {package.name}'s {module}",
        }


def _chatterbot(package: Package, file: str) -> Iterator[dict[str, Any]]:
    """Each conversation is a list of lines, spoken by turns."""
    import yaml

    content = yaml.safe_load((package.folder / file).read_text(encoding="utf-8-sig"))
    for conversation in content["conversations"]:
        # One entry of the corpus is a text instead of a list: it goes on as it is, to be kept aside with a reason.
        turns = conversation
        if isinstance(conversation, list):
            turns = [{"role": ("user", "assistant")[n % 2], "content": line} for n, line in enumerate(conversation)]
        yield {
            "messages": turns,
            "topic": Path(file).stem,
            "source": f"{package.name} {package.version}: {Path(file).stem}",
            "collector": f"the maintainers of {package.name}",
            "annotator": package.authors,
        }


READERS: dict[str, Reader] = {
    "docstrings": Reader((".py",), "", _docstrings),
    "chatterbot": Reader((".yml",), "/data/english/", _chatterbot),
}
