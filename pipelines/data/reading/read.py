"""Reading a recipe's dataset: every row becomes an example, or is kept aside with its reason."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain, islice
from typing import TYPE_CHECKING

from cluster.errors import UserError
from pipelines.data.example import COLUMNS, BadRow, Example, Unreadable, shown
from pipelines.data.reading.canonical import Format, canonicalise, check_mapping, choose_format
from pipelines.data.reading.formats import RawRow, raw_rows
from pipelines.data.reading.packages import Package, find_package
from pipelines.data.reading.sources import SourceFile, bytes_fingerprint, is_package, list_files
from pipelines.fingerprint import fingerprint
from pipelines.recipe import Recipe
from pipelines.recipe_data import Dataset

if TYPE_CHECKING:
    import pyarrow as pa

CANONICAL_VERSION = 2
"""Enters the fingerprint: raise it when the same file gives other examples than before, or when something that an audit
lets pass today would close one of its gates: its report is found by this fingerprint."""

SMALL_BYTES = 64 * 2**20
"""Up to this size one process reads: starting Ray's tasks would take longer."""

BAD_COLUMNS = tuple(field.name for field in fields(BadRow))

TABLE_ROWS = 2048
"""Rows that are read, looked at and handed on together."""
TABLE_CHARACTERS = 2**24
"""And their characters, from which on there are no more: rows may be of any length."""

_COLUMNS_FROM = 1000
"""Rows whose columns decide a file's format, from the first that has any."""


@dataclass(frozen=True)
class Inputs:
    """What a recipe's sources come to."""

    files: tuple[SourceFile, ...]
    packages: tuple[Package, ...]

    @property
    def bytes(self) -> int:
        """Of the files."""
        return sum(file.size for file in self.files)


def dataset_fingerprint(recipe: Recipe) -> str:
    """SHA-256 over the bytes of every file, the packages' versions and what the recipe says of the dataset.

    Where the files lie does not matter, what they hold and are called does. The seed enters where
    `max_examples` draws by it.
    """
    inputs = resolve(recipe.dataset)
    return fingerprint(
        CANONICAL_VERSION,
        sorted((file.name, bytes_fingerprint(file)) for file in inputs.files),
        sorted(package.fingerprint() for package in inputs.packages),
        recipe.dataset.model_dump(mode="json", exclude={"source"}),
        recipe.seed if recipe.dataset.max_examples else None,
    )


def table_of(rows: "list[Example | BadRow]") -> "pa.Table":
    """Columns of Example, and those of BadRow after `bad_`: the good rows first, each kind in its order."""
    import pyarrow as pa

    good = [row for row in rows if isinstance(row, Example)]
    bad = [row for row in rows if isinstance(row, BadRow)]
    columns = {name: [getattr(row, name) for row in good] + [None] * len(bad) for name in COLUMNS}
    columns |= {f"bad_{name}": [None] * len(good) + [getattr(row, name) for row in bad] for name in BAD_COLUMNS}
    kinds = {name: pa.int64() if name.endswith("position") else pa.string() for name in columns}
    return pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})


def tables_of(rows: Iterable[Example | BadRow]) -> "Iterator[pa.Table]":
    """The rows, some thousand a table, fewer where they are long."""
    part: list[Example | BadRow] = []
    characters = 0
    for row in rows:
        part.append(row)
        characters += len(row.messages) + len(row.meta) if isinstance(row, Example) else len(row.content)
        if len(part) == TABLE_ROWS or characters >= TABLE_CHARACTERS:
            yield table_of(part)
            part, characters = [], 0
    if part:
        yield table_of(part)


def read_file(file: SourceFile, dataset: Dataset) -> Iterator[Example | BadRow]:
    """The rows of one file; a file that cannot be read gives one BadRow of the kind `file`, at its end."""
    return _read(((file.name, row) for row in raw_rows(file)), dataset, file.name)


def read_package(package: Package, dataset: Dataset) -> Iterator[Example | BadRow]:
    """The rows of an installed package."""
    return _read(package.rows(), dataset, package.name)


def _read(rows: Iterable[tuple[str, RawRow]], dataset: Dataset, name: str) -> Iterator[Example | BadRow]:
    problems: list[UserError] = []
    whole = _until_a_problem(rows, problems)
    head: list[tuple[str, RawRow]] = []
    for each in whole:
        head.append(each)
        if each[1].value:
            break
    if not head and not problems:
        problems.append(UserError(f"{name}: 0 rows.", "Put an example into each row, or leave the file out."))
    head.extend(islice(whole, _COLUMNS_FROM - 1))
    columns = dict.fromkeys(chain.from_iterable(row.value or () for _, row in head))
    try:
        form = choose_format(columns, dataset, name) if columns else None
        for place, row in chain(head, whole):
            yield _example_or_not(place, row, form, dataset)
    except UserError as problem:
        problems.append(problem)
    # What stood before the place where a file breaks is read; the break itself comes last.
    if problems:
        yield BadRow(name, 0, "file", problems[0].message, problems[0].remedy)


def _until_a_problem(rows: Iterable[tuple[str, RawRow]], problems: list[UserError]) -> Iterator[tuple[str, RawRow]]:
    try:
        yield from rows
    except UserError as problem:
        problems.append(problem)


def _example_or_not(place: str, row: RawRow, form: Format | None, dataset: Dataset) -> Example | BadRow:
    if row.value is None:
        return BadRow(place, row.position, "syntax", row.problem, shown(row.text))
    if not row.value or form is None:
        return BadRow(place, row.position, "missing", "the row has no columns", shown(row.value))
    try:
        return canonicalise(row.value, form, dataset, (place, row.position))
    except Unreadable as problem:
        return BadRow(place, row.position, problem.kind, problem.reason, shown(row.value))


def choose_units(sizes: Mapping[str, int], most: int, seed: int) -> set[str]:
    """Names of units with at most `most` rows in all: in the order of their seeded hashes, while they fit.

    A unit is `group NAME`, or `example ID` with its repeats. The choice depends on contents alone, so that the
    order of files does not change it.
    """
    kept, room = set(), most
    for unit in sorted(sizes, key=lambda unit: fingerprint(seed, "max_examples", unit)):
        if sizes[unit] <= room:
            kept.add(unit)
            room -= sizes[unit]
    return kept


def resolve(dataset: Dataset) -> Inputs:
    """The files and packages that the recipe names. Raises UserError with every source that names none."""
    check_mapping(dataset)
    sources = (dataset.source,) if isinstance(dataset.source, str) else dataset.source
    packages = tuple(find_package(source) for source in dict.fromkeys(sources) if is_package(source))
    named = tuple(source for source in sources if not is_package(source))
    return Inputs(list_files(named) if named else (), packages)


def too_small(rows: int) -> UserError:
    """The error for a `max_examples` that no group fits in."""
    return UserError(
        f"dataset: none of {rows:,} rows makes an example: max_examples is below the size of every group.",
        "Raise dataset.max_examples above the size of the smallest group.",
    )


def refuse(broken: list[BadRow], first: list[BadRow], bad: int, good: int, dataset: Dataset) -> None:
    """Raise UserError where nothing is readable, or something is not and the recipe says `on_bad_row: raise`.

    `broken` are the files that cannot be read, `first` some of all `bad` rows, those files included.
    """
    strict = dataset.on_bad_row == "raise"
    if broken and (strict or not good):
        others = f"\nThe other files hold {good:,} readable examples." if good else ""
        if len(broken) == 1:
            raise UserError(broken[0].reason + others, broken[0].content)
        raise UserError(
            f"{len(broken)} files cannot be read:\n" + "\n".join(f"  - {row.reason}" for row in broken) + others,
            broken[0].content,
        )
    if bad and strict:
        listed = "\n".join(f"  - {row.file}, row {row.position}: {row.reason}" for row in first)
        more = f"\n  and {bad - len(first):,} more" if bad > len(first) else ""
        raise UserError(
            f"{bad:,} of {good + bad:,} rows cannot be read:\n{listed}{more}",
            "Correct them, or set dataset.on_bad_row to quarantine.",
        )
    if not good:
        raise UserError(f"dataset: none of {bad:,} rows makes an example.", first[0].reason if first else "")
