"""Rows encoded in processes of Ray Data, each with its tokenizer, ahead of who reads them and not far ahead."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from cluster.errors import UserError
from pipelines.data.ray_data import BLOCK_BYTES, in_order, most_processes
from pipelines.models.tokenizer_files import files_of, folder_here
from pipelines.recipe import Train
from pipelines.training.encoding import Block, SideFigures, encode_block

if TYPE_CHECKING:
    import pyarrow as pa
    import ray
    from pyarrow import fs

    from pipelines.workspace import Workspace

AHEAD = 2
"""Blocks that a process has before it: the one it encodes and the next."""


def encode_in_tasks(
    blocks: "Iterator[pa.RecordBatch]", base: Path, train: Train, workspace: "Workspace"
) -> Generator[Block, None, None]:
    """The blocks encoded (see `encode_block`), in their order.

    They wait in a file in storage, which every node reads. Raises the UserError of the first block that has one.
    """
    from cluster.connect import connect

    connect(workspace.settings)
    import ray.data
    from ray.data import ActorPoolStrategy

    with _waiting(blocks, workspace) as (uri, count):
        # On a cluster the pool grows with what waits.
        most = min(count, most_processes(workspace.settings) or count)
        context = in_order()
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=most * AHEAD * BLOCK_BYTES
        )
        with ray.data.DataContext.current(context):
            encoded = ray.data.from_items(
                [{"number": number} for number in range(count)], override_num_blocks=count
            ).map_batches(
                cast(Any, _Encoder),
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=(uri, str(base), train),
                fn_kwargs={"files": ray.put(files_of(base))},
                compute=ActorPoolStrategy(min_size=1, max_size=most, max_tasks_in_flight_per_actor=AHEAD),
            )
        with closing(_packets(encoded)) as packets:
            for number, packet in enumerate(packets):
                assert packet["number"] == number
                yield _opened(packet)


@contextmanager
def _waiting(blocks: "Iterator[pa.RecordBatch]", workspace: "Workspace") -> Iterator[tuple[str, int]]:
    """(address, number) of the blocks in a file, which is there as long as it is needed."""
    import pyarrow as pa

    uri = workspace.uri("waiting", f"{uuid4().hex}.arrow")
    storage, path = _place(uri)
    storage.create_dir(path.rpartition("/")[0], recursive=True)
    first, count = next(blocks), 0
    with storage.open_output_stream(path) as sink:
        try:
            with pa.ipc.new_file(sink, first.schema) as writer:
                for block in chain([first], blocks):
                    writer.write_batch(block)
                    count += 1
            sink.close()
            yield uri, count
        finally:
            storage.delete_file(path)


def _place(uri: str) -> "tuple[fs.FileSystem, str]":
    from pyarrow import fs

    return fs.FileSystem.from_uri(uri) if "://" in uri else (fs.LocalFileSystem(), uri)


def _packets(encoded: "ray.data.Dataset") -> Generator[dict[str, Any], None, None]:
    for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        yield from cast("pa.Table", table).to_pylist()


class _Encoder:
    """A process that encodes blocks by their number: a row of (number, examples, notes) each.

    A sentence for people travels as a note: raised here, the one that is heard would be that of the quickest process.
    """

    def __init__(self, uri: str, base: str, train: Train) -> None:
        self._uri, self._base, self._train = uri, base, train
        self._rows: Any = None
        self._tokenizer: Any = None

    def __call__(self, batch: "pa.Table", files: "ray.ObjectRef[dict[str, bytes]]") -> "pa.Table":
        import pyarrow as pa

        number = batch["number"][0].as_py()
        examples, notes = self._sent(number, files)
        columns = {"number": [number], "examples": pa.array([examples], pa.binary()), "notes": [json.dumps(notes)]}
        return pa.table(columns)

    def _sent(self, number: int, files: "ray.ObjectRef[dict[str, bytes]]") -> tuple[bytes, dict[str, Any]]:
        import pyarrow as pa

        try:
            block = self._encoded(number, files)
        except UserError as error:
            return b"", {"message": error.message, "remedy": error.remedy}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, block.examples.schema) as writer:
            writer.write_batch(block.examples)
        return sink.getvalue().to_pybytes(), {"figures": asdict(block.figures), "shown": block.shown}

    def _encoded(self, number: int, files: "ray.ObjectRef[dict[str, bytes]]") -> Block:
        if self._rows is None:
            import pyarrow as pa

            from pipelines.models.load import load_tokenizer

            self._tokenizer = load_tokenizer(folder_here(self._base, files))
            storage, path = _place(self._uri)
            self._rows = pa.ipc.open_file(storage.open_input_file(path))
        return encode_block(self._tokenizer, self._rows.get_batch(number), self._train)


def _opened(packet: dict[str, Any]) -> Block:
    import pyarrow as pa

    notes = json.loads(packet["notes"])
    if "message" in notes:
        raise UserError(notes["message"], notes["remedy"])
    examples = pa.ipc.open_stream(packet["examples"]).read_next_batch()
    return Block(examples, SideFigures(**notes["figures"]), notes["shown"])
