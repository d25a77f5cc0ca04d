"""Reading large data with Ray Data: rows stream from files through `profile` to the driver, whatever their number."""

import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.data.profile import ProfileSettings, profile
from pipelines.data.reading.read import read_file, tables_of
from pipelines.data.reading.sources import SourceFile
from pipelines.recipe_data import Dataset

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

BLOCK_BYTES = 8 * 2**20
"""Size at which a task hands its rows on. Ray's own 128 MiB would fill a small machine's object store."""


def stream_tables(
    files: tuple[SourceFile, ...], dataset: Dataset, wanted: ProfileSettings, settings: Settings
) -> "Iterator[pa.Table]":
    """The profiled tables of the files (see `read.table_of` and `profile`), in the order of files and positions.

    A task a file reads, as many tasks as there are cores profile; neither runs ahead of the one who reads the tables.
    """
    from cluster.connect import connect

    connect(settings)
    import ray.data
    from ray.data import TaskPoolStrategy

    # Its console speaks of plans and bars; our bar says what people ask.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    # Row numbers must not depend on which task ends first.
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    # As it is, not wrapped: what a worker lacks is a sentence for people.
    context.raise_original_map_exception = True
    with ray.data.DataContext.current(context):
        numbers = [{"number": number} for number in range(len(files))]
        listed = ray.data.from_items(numbers, override_num_blocks=len(files))
        read = listed.map_batches(
            cast(Any, _read),
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"files": files, "dataset": dataset},
            compute=TaskPoolStrategy(_most_readers(settings)),
        )
        profiled = read.map_batches(
            cast(Any, _profile),
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"wanted": wanted, "tokenizer": ray.put(_tokenizer_files(wanted.tokenizer))},
            compute=TaskPoolStrategy(_most_profilers(settings)),
        )
    # A dataset keeps the context that it was made in.
    try:
        yield from profiled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            # What the driver has (a model for names) a worker may lack.
            raise UserError(f"On a worker: {error.cause.message}", error.cause.remedy) from None
        raise


def _read(batch: "pa.Table", files: tuple[SourceFile, ...], dataset: Dataset) -> "Iterator[pa.Table]":
    for number in batch["number"].to_pylist():
        yield from tables_of(read_file(files[number], dataset))


def _profile(table: "pa.Table", wanted: ProfileSettings, tokenizer: "ray.ObjectRef[dict[str, bytes]]") -> "pa.Table":
    if wanted.tokenizer and not Path(wanted.tokenizer).is_dir():
        wanted = replace(wanted, tokenizer=_unpacked(tokenizer))
    return profile(table, wanted)


def _tokenizer_files(folder: str | None) -> dict[str, bytes]:
    """Name -> content of what a tokenizer is loaded from: another node has no such folder."""
    paths = [] if folder is None else [path for kind in ("*.json", "*.jinja") for path in Path(folder).glob(kind)]
    return {path.name: path.read_bytes() for path in paths}


_UNPACKED: "dict[ray.ObjectRef[dict[str, bytes]], tempfile.TemporaryDirectory[str]]" = {}
"""Folders that go with this process."""


def _unpacked(tokenizer: "ray.ObjectRef[dict[str, bytes]]") -> str:
    """A folder of this process with the driver's tokenizer."""
    import ray

    if tokenizer not in _UNPACKED:
        _UNPACKED[tokenizer] = tempfile.TemporaryDirectory(prefix="sluice-tokenizer-")
        for name, content in ray.get(tokenizer).items():
            Path(_UNPACKED[tokenizer].name, name).write_bytes(content)
    return _UNPACKED[tokenizer].name


def _is_embedded(settings: Settings) -> bool:
    from cluster.connect import inside_job

    return settings.ray_address is None and not inside_job()


def _most_readers(settings: Settings) -> int | None:
    """On one machine the embedded Ray promises more cores than there are, and each task holds memory."""
    return max(1, (os.cpu_count() or 2) // 2) if _is_embedded(settings) else None


def _most_profilers(settings: Settings) -> int | None:
    return os.cpu_count() or 2 if _is_embedded(settings) else None
