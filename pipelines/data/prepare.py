"""From a recipe to its corpus and to the evidence about it: each made once, kept, and made again when it is gone."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.corpus import Corpus, CorpusWriter, Note
from pipelines.data.evidence import Evidence, EvidenceNote, write_evidence
from pipelines.data.example import BadRow
from pipelines.data.keys import corpus_key, evidence_key, profile_settings
from pipelines.data.privacy.private import require_kinds
from pipelines.data.profile import ProfileSettings, profile
from pipelines.data.reading.read import (
    BAD_COLUMNS,
    SMALL_BYTES,
    Inputs,
    choose_units,
    dataset_fingerprint,
    read_file,
    read_package,
    refuse,
    resolve,
    tables_of,
    too_small,
)
from pipelines.progress import Bar, Progress
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SHOWN = 10
"""Bad rows that an error names."""


def prepare(
    recipe: Recipe,
    workspace: Workspace,
    progress: Progress,
    *,
    fresh: bool = False,
    tokens: bool = False,
    small_bytes: int = SMALL_BYTES,
) -> Corpus:
    """The corpus of the recipe's dataset: the one that is kept for exactly these data and settings, or a new one.

    Small data are read in this process, larger ones by Ray Data, through the same functions. Where `tokens` do not
    matter, one that was made before the base model came here will do. Raises UserError where nothing can be read, or
    something cannot and the recipe says `on_bad_row: raise`; StageFailed where the data change meanwhile.
    """
    dataset = dataset_fingerprint(recipe)
    root, (rows, counted) = _cache(workspace, "corpora"), corpus_key(recipe, workspace, dataset)
    folder = root / f"{rows}-{counted}"
    with _only_one(root / rows):
        if not fresh and not tokens and not _is_whole(folder):
            folder = next((other for other in sorted(root.glob(f"{rows}-*")) if _is_whole(other)), folder)
        if fresh or not _is_whole(folder):
            _read_into(folder, recipe, workspace, progress, dataset, small_bytes)
    return Corpus(folder)


def _is_whole(folder: Path) -> bool:
    return (folder / "corpus.json").is_file()


def evidence_of(
    recipe: Recipe, workspace: Workspace, progress: Progress, *, fresh: bool = False, corpus: Corpus | None = None
) -> Evidence:
    """The evidence about the recipe's corpus, found or made; the corpus with it where none is given (see `prepare`)."""
    corpus = corpus or prepare(recipe, workspace, progress, fresh=fresh)
    folder = _cache(workspace, "evidence") / evidence_key(recipe, workspace, corpus.note.dataset)
    with _only_one(folder):
        if fresh or not (folder / "evidence.json").is_file():
            _find_into(folder, corpus, recipe, workspace, progress)
    return Evidence(folder)


@dataclass
class _Tally:
    """What passed by while reading."""

    good: int = 0
    bad: int = 0
    first: list[BadRow] = field(default_factory=list)
    broken: list[BadRow] = field(default_factory=list)

    def add(self, table: "pa.Table") -> None:
        """Count bad rows, and keep the first ones and the files that cannot be read."""
        rows = [BadRow(**row) for row in table.to_pylist()] if len(self.first) < SHOWN or len(table) else []
        self.bad += len(rows)
        self.first += rows[: SHOWN - len(self.first)]
        self.broken += [row for row in rows if row.kind == "file"]


def _read_into(
    folder: Path, recipe: Recipe, workspace: Workspace, progress: Progress, dataset: str, small_bytes: int
) -> None:
    from pipelines.stage import check_unmoved

    require_kinds(recipe.audit.private.kinds)
    started, inputs, tally = time.monotonic(), resolve(recipe.dataset), _Tally()
    spread = inputs.bytes > small_bytes
    wanted = profile_settings(recipe, workspace)
    tables = _tables(inputs, recipe, wanted, workspace if spread else None)
    with (
        CorpusWriter(folder) as writer,
        progress.bar("reading (MB)", total=round(inputs.bytes / 1e6, 1) or None) as bar,
    ):
        for table in _moving(tables, inputs, bar):
            good, bad = _parted(table)
            tally.good += len(good)
            tally.add(bad)
            writer.write_bad(bad)
            if len(good):
                writer.write(good)
        refuse(tally.broken, tally.first, tally.bad, tally.good, recipe.dataset)
        keep = chosen_rows(writer.close(), recipe.dataset.max_examples, recipe.seed)
        if keep is not None and not keep.any():
            raise too_small(tally.good + tally.bad)
        after = dataset_fingerprint(recipe)
        check_unmoved("audit", recipe, {"dataset": dataset}, {"dataset": after})
        note = Note(
            dataset=after,
            driver="Ray Data" if spread else "one process",
            left_out=0 if keep is None else int(tally.good - keep.sum()),
            tokenizer=recipe.base.base if wanted.tokenizer else None,
        )
        writer.finish(note, keep)
    seconds = time.monotonic() - started
    progress.say(f"{tally.good:,} rows read by {note.driver} in {seconds:.1f} s, {tally.bad:,} kept aside.")


def _tables(
    inputs: Inputs, recipe: Recipe, wanted: ProfileSettings, spread: Workspace | None
) -> "Iterator[tuple[pa.Table, int]]":
    """Profiled tables, each with the number of files that are behind it: packages first, then files in their order."""
    dataset = recipe.dataset
    for package in inputs.packages:
        for table in tables_of(read_package(package, dataset)):
            yield profile(table, wanted), 0
    if spread is None:
        for number, file in enumerate(inputs.files):
            for table in tables_of(read_file(file, dataset)):
                yield profile(table, wanted), number
    elif inputs.files:
        from pipelines.data.reading.streaming import stream_tables

        number, name = -1, None
        for table in stream_tables(inputs.files, dataset, wanted, spread.settings):
            for place in ("file", "bad_file"):
                found = table[place].drop_null()
                if len(found) and (last := found[-1].as_py()) != name:
                    number, name = number + 1, last
            yield table, max(number, 0)


_LARGE = ("messages", "rejected", "meta", "bad_content")
"""Columns whose bytes tell how far a file is read."""


def _moving(tables: "Iterator[tuple[pa.Table, int]]", inputs: Inputs, bar: Bar) -> "Iterator[pa.Table]":
    """The tables, moving the bar: whole files as their bytes, the present one by the size of its rows so far."""
    sizes, rows, here, present = [file.size for file in inputs.files], 0, 0, 0
    for table, number in tables:
        rows += len(table)
        here = sum(table[name].nbytes for name in _LARGE) + (here if number == present else 0)
        present = number
        done = sum(sizes[:number]) + min(here, *sizes[number : number + 1], sum(sizes))
        bar.update(round(done / 1e6, 1), note=f"{rows:,} rows")
        yield table
    bar.update(round(inputs.bytes / 1e6, 1), note=f"{rows:,} rows")


def _parted(table: "pa.Table") -> "tuple[pa.Table, pa.Table]":
    """(the good rows with their columns, the bad rows under the names of BadRow)."""
    import pyarrow.compute as pc

    names = [f"bad_{name}" for name in BAD_COLUMNS]
    is_good = table["id"].is_valid()
    bad = table.filter(pc.invert(is_good)).select(names).rename_columns(list(BAD_COLUMNS))
    # Ray joins and cuts tables as its blocks fill up: the order within one is no promise.
    return (table.filter(is_good) if len(bad) else table).drop_columns(names), bad


def chosen_rows(corpus: Corpus, most: int | None, seed: int) -> "NDArray[np.bool_] | None":
    """Which rows `max_examples` keeps (see `choose_units`); None: all."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if most is None or len(corpus) <= most:
        return None
    group, id = corpus.column("group").combine_chunks(), corpus.column("id").combine_chunks()
    units = pc.if_else(
        group.is_valid(),
        pc.binary_join_element_wise("group", group, " "),
        pc.binary_join_element_wise("example", id, " "),
    )
    encoded = (units.combine_chunks() if isinstance(units, pa.ChunkedArray) else units).dictionary_encode()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    kept = choose_units(dict(zip(names, np.bincount(codes).tolist(), strict=True)), most, seed)
    flags: NDArray[np.bool_] = np.array([name in kept for name in names])[codes]
    return flags


def _find_into(folder: Path, corpus: Corpus, recipe: Recipe, workspace: Workspace, progress: Progress) -> None:
    from pipelines.data.gather import gather

    tables, anomalies, label_noise = gather(corpus, recipe, progress)
    note = EvidenceNote(str(corpus.folder), anomalies, label_noise)
    write_evidence(folder, tables, note)


def _cache(workspace: Workspace, kind: str) -> Path:
    """Where this machine keeps them: beside local storage, at home where storage is remote."""
    return Path(workspace.uri(kind)) if workspace.is_local else Path.home() / ".sluice" / kind


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Wait here while another process of this machine makes the same folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
