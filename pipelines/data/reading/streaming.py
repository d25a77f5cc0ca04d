"""Reading large data with Ray Data: rows stream from files through `profile` to the driver, whatever their number."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.data.profile import ProfileSettings, profile
from pipelines.data.ray_data import in_order, most_processes
from pipelines.data.reading.read import read_file, tables_of
from pipelines.data.reading.sources import SourceFile
from pipelines.models.tokenizer_files import files_of, folder_here
from pipelines.recipe_data import Dataset

if TYPE_CHECKING:
    import pyarrow as pa
    import ray


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

    with ray.data.DataContext.current(in_order()):
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
            fn_kwargs={"wanted": wanted, "tokenizer": ray.put(files_of(wanted.tokenizer) if wanted.tokenizer else {})},
            compute=TaskPoolStrategy(most_processes(settings)),
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
    if wanted.tokenizer:
        wanted = replace(wanted, tokenizer=folder_here(wanted.tokenizer, tokenizer))
    return profile(table, wanted)


def _most_readers(settings: Settings) -> int | None:
    most = most_processes(settings)
    return most and max(1, most // 2)
