"""Reading a recipe's dataset: every row becomes an example, or is kept aside with its reason."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.data.canonical import canonicalise, check_mapping, choose_format
from pipelines.data.example import BadRow, Example, Unreadable, shown
from pipelines.data.formats import RawRow, raw_rows
from pipelines.data.packages import Package, find_package
from pipelines.data.sources import SourceFile, bytes_fingerprint, is_package, list_files
from pipelines.fingerprint import fingerprint
from pipelines.recipe import Recipe
from pipelines.recipe_data import Dataset

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset as RayDataset

CANONICAL_VERSION = 1
"""Enters the fingerprint: raise it when the same file gives other examples than before."""

SMALL_BYTES = 64 * 2**20
"""Up to this size one process reads: starting Ray's tasks would take longer."""

_COLUMNS_FROM = 1000
"""Rows whose columns decide a file's format, from the first that has any."""


@dataclass(frozen=True)
class Reading:
    """What a dataset comes to."""

    examples: list[Example]
    """In the order of files and positions, repeats included."""
    bad: list[BadRow]
    """Rows kept aside."""
    left_out: int
    """Readable rows beyond `max_examples`."""
    driver: str
    """Who read: `one process` or `Ray Data`."""
    fingerprint: str
    """`dataset_fingerprint` after the last row: whoever took it before can tell whether the data held still."""

    @property
    def rows(self) -> int:
        """Every row that was found."""
        return len(self.examples) + len(self.bad) + self.left_out


@dataclass(frozen=True)
class _Inputs:
    files: tuple[SourceFile, ...]
    packages: tuple[Package, ...]


def dataset_fingerprint(recipe: Recipe) -> str:
    """SHA-256 over the bytes of every file, the packages' versions and what the recipe says of the dataset.

    Where the files lie does not matter, what they hold and are called does. The seed enters where
    `max_examples` draws by it.
    """
    inputs = _resolve(recipe.dataset)
    return fingerprint(
        CANONICAL_VERSION,
        sorted((file.name, bytes_fingerprint(file)) for file in inputs.files),
        sorted(package.fingerprint() for package in inputs.packages),
        recipe.dataset.model_dump(mode="json", exclude={"source"}),
        recipe.seed if recipe.dataset.max_examples else None,
    )


def read_examples(recipe: Recipe, settings: Settings | None = None, small_bytes: int = SMALL_BYTES) -> Reading:
    """Every row of the recipe's dataset, as an example or with the reason why it is none.

    Small data are read in this process, larger ones by Ray Data; both call `read_file`. Raises UserError
    with every file that cannot be read, and with every bad row when the recipe says `on_bad_row: raise`.
    """
    dataset = recipe.dataset
    inputs = _resolve(dataset)
    rows: Iterable[Example | BadRow] = chain.from_iterable(read_package(p, dataset) for p in inputs.packages)
    spread = sum(file.size for file in inputs.files) > small_bytes
    if spread:
        from cluster.connect import connect

        connect(settings or Settings.from_environment())
        rows = chain(rows, _rows_of(stream_examples(inputs.files, dataset).iter_batches(batch_format="pyarrow")))
    else:
        rows = chain(rows, chain.from_iterable(read_file(file, dataset) for file in inputs.files))
    examples, bad = [], []
    for row in rows:
        if isinstance(row, Example):
            examples.append(row)
        else:
            bad.append(row)
    if spread:
        # Tasks end in any order.
        examples.sort(key=lambda row: (row.file, row.position))
        bad.sort(key=lambda row: (row.file, row.position))
    _refuse(bad, len(examples), dataset)
    kept = choose_examples(examples, dataset.max_examples, recipe.seed)
    if not kept:
        raise UserError(
            f"dataset: none of {len(examples) + len(bad):,} rows makes an example.",
            bad[0].reason if bad else "Raise dataset.max_examples above the size of the smallest group.",
        )
    driver = "Ray Data" if spread else "one process"
    return Reading(kept, bad, len(examples) - len(kept), driver, dataset_fingerprint(recipe))


def stream_examples(files: tuple[SourceFile, ...], dataset: Dataset) -> "RayDataset":
    """The same rows as a streaming Ray Dataset, a task a file: columns of Example, and those of BadRow after `bad_`."""
    import ray.data

    numbers = [{"number": number} for number in range(len(files))]
    listed = ray.data.from_items(numbers, override_num_blocks=len(files))
    return listed.map_batches(
        cast(Any, _read_batch), batch_size=1, batch_format="pyarrow", fn_kwargs={"files": files, "dataset": dataset}
    )


def _read_batch(batch: "pa.Table", files: tuple[SourceFile, ...], dataset: Dataset) -> "Iterator[pa.Table]":
    for number in batch["number"].to_pylist():
        rows = read_file(files[number], dataset)
        while part := list(islice(rows, 2000)):
            yield _table_of(part)


_GOOD, _BAD = [field.name for field in fields(Example)], [field.name for field in fields(BadRow)]


def _table_of(rows: list[Example | BadRow]) -> "pa.Table":
    import pyarrow as pa

    names = [*_GOOD, *(f"bad_{name}" for name in _BAD)]
    schema = pa.schema([(name, pa.int64() if name.endswith("position") else pa.string()) for name in names])
    flat = [
        asdict(row) if isinstance(row, Example) else {f"bad_{k}": v for k, v in asdict(row).items()} for row in rows
    ]
    return pa.Table.from_pylist(flat, schema=schema)


def _rows_of(tables: "Iterable[pa.Table]") -> Iterator[Example | BadRow]:
    for table in tables:
        for row in table.to_pylist():
            if row["id"] is not None:
                yield Example(**{name: row[name] for name in _GOOD})
            else:
                yield BadRow(**{name: row[f"bad_{name}"] for name in _BAD})


def read_file(file: SourceFile, dataset: Dataset) -> Iterator[Example | BadRow]:
    """The rows of one file; a file that cannot be read gives one BadRow of the kind `file`, at its end."""
    return _read(((file.name, row) for row in raw_rows(file)), dataset, file.name)


def read_package(package: Package, dataset: Dataset) -> Iterator[Example | BadRow]:
    """The rows of an installed package."""
    return _read(package.rows(), dataset, package.name)


def _read(rows: Iterable[tuple[str, RawRow]], dataset: Dataset, name: str) -> Iterator[Example | BadRow]:
    rows = iter(rows)
    head: list[tuple[str, RawRow]] = []
    try:
        for each in rows:
            head.append(each)
            if each[1].value:
                break
        if not head:
            raise UserError(f"{name}: 0 rows.", "Put an example into each row, or leave the file out.")
        head.extend(islice(rows, _COLUMNS_FROM - 1))
        columns = dict.fromkeys(chain.from_iterable(row.value or () for _, row in head))
        form = choose_format(columns, dataset, name) if columns else None
        for place, row in chain(head, rows):
            if row.value is None:
                yield BadRow(place, row.position, "syntax", row.problem, shown(row.text))
                continue
            if not row.value or form is None:
                yield BadRow(place, row.position, "missing", "the row has no columns", shown(row.value))
                continue
            try:
                yield canonicalise(row.value, form, dataset, (place, row.position))
            except Unreadable as problem:
                yield BadRow(place, row.position, problem.kind, problem.reason, shown(row.value))
    except UserError as problem:
        yield BadRow(name, 0, "file", problem.message, problem.remedy)


def choose_examples(examples: list[Example], most: int | None, seed: int) -> list[Example]:
    """At most `most` examples: whole groups in the order of their seeded hashes, while they fit.

    An example without a group counts as one, its repeats included. The choice depends on contents
    alone, so that the order of files does not change it.
    """
    if most is None or len(examples) <= most:
        return examples
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[_unit(example)] = sizes.get(_unit(example), 0) + 1
    kept, room = set(), most
    for unit in sorted(sizes, key=lambda unit: fingerprint(seed, "max_examples", unit)):
        if sizes[unit] <= room:
            kept.add(unit)
            room -= sizes[unit]
    return [example for example in examples if _unit(example) in kept]


def _unit(example: Example) -> str:
    return f"group {example.group}" if example.group else f"example {example.id}"


def _resolve(dataset: Dataset) -> _Inputs:
    check_mapping(dataset)
    sources = (dataset.source,) if isinstance(dataset.source, str) else dataset.source
    packages = tuple(find_package(source) for source in dict.fromkeys(sources) if is_package(source))
    named = tuple(source for source in sources if not is_package(source))
    return _Inputs(list_files(named) if named else (), packages)


def _refuse(bad: list[BadRow], good: int, dataset: Dataset) -> None:
    """Raise UserError for files that cannot be read, or for bad rows where the recipe wants that."""
    broken: list[Any] = [row for row in bad if row.kind == "file"]
    if broken:
        others = f"\nThe other files hold {good:,} readable examples." if good else ""
        if len(broken) == 1:
            raise UserError(broken[0].reason + others, broken[0].content)
        raise UserError(
            f"{len(broken)} files cannot be read:\n" + "\n".join(f"  - {row.reason}" for row in broken) + others,
            broken[0].content,
        )
    if bad and dataset.on_bad_row == "raise":
        listed = "\n".join(f"  - {row.file}, row {row.position}: {row.reason}" for row in bad[:10])
        more = f"\n  and {len(bad) - 10:,} more" if len(bad) > 10 else ""
        raise UserError(
            f"{len(bad):,} of {good + len(bad):,} rows cannot be read:\n{listed}{more}",
            "Correct them, or set dataset.on_bad_row to quarantine.",
        )
