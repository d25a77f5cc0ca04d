"""Encoded sides of a split as bins: packed and kept once for all who train on them with these settings."""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.chat import ENCODING_VERSION
from pipelines.data.packing import pack
from pipelines.data.spool import Spool, SpoolWriter
from pipelines.fingerprint import fingerprint, short
from pipelines.recipe import Train
from pipelines.training.encoding import SideFigures, encoded_schema
from pipelines.training.input_stream import encoded_blocks

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.data.versioned.table import Side
    from pipelines.progress import Progress
    from pipelines.workspace import Workspace

BINS_VERSION = 2
"""Part of the bins' key: raise it when their layout changes."""

BATCH_BINS = 1024
"""Bins that are put together at a time."""

FIGURES = "figures.json"
"""What became of the examples; written last, so that bins without it are none."""

NOT_PACKED = " The base is an encoder-decoder: packing does not apply, examples of like length share a pass."


@dataclass(frozen=True)
class StoredBins:
    """Where the bins are and what went into them."""

    address: str
    """Folder in storage with train.arrow, validation.arrow and figures.json."""
    train: SideFigures
    validation: SideFigures
    example: dict[str, str]


def bins_key(split: str, base: str, train: Train) -> str:
    """Fingerprint of everything that the bins depend on: trials with the same input settings share them."""
    settings: list[Any] = [train.max_length, train.packing, train.on_overlong]
    # Of a preference pair both answers are encoded.
    settings += ["pairs"] if train.learns_from_pairs else []
    settings += [] if train.fold is None else ["fold", train.fold]
    return fingerprint(BINS_VERSION, ENCODING_VERSION, split, base, settings)


def store_bins(
    workspace: "Workspace",
    key: str,
    base: Path,
    sides: "Callable[[Path], Mapping[Side, Spool]]",
    train: Train,
    progress: "Progress",
) -> StoredBins:
    """The stored bins of `key`, made by the tokenizer in the folder `base` when they are new.

    `sides` is then asked for the rows of train and validation (see `read_columns`), in files in the folder that it is
    given. Bins are stored whole or not at all. Raises UserError as `encode_block` does.
    """
    address = workspace.uri("bins", short(key))
    found = _stored(workspace, address)
    if found:
        progress.say(f"tokens: {found.train.kept} + {found.validation.kept} examples, encoded before.")
        return found
    figures: dict[str, SideFigures] = {}
    shown: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bins-") as made, tempfile.TemporaryDirectory() as scratch:
        for side, rows in sides(Path(scratch)).items():
            encoded = Path(scratch, f"{side}.encoded.arrow")
            figures[side], first = _encode(side, rows, encoded, base, train, workspace, progress)
            figures[side].bins = write_bins(
                Spool(encoded), Path(made, f"{side}.arrow"), train, packed=train.packing and not figures[side].seq2seq
            )
            shown = shown or first
        notes = {"sides": {side: asdict(found) for side, found in figures.items()}, "example": shown}
        Path(made, FIGURES).write_text(json.dumps(notes), encoding="utf-8")
        workspace.keep(Path(made), "bins", short(key), last=FIGURES)
    progress.say(
        f"tokens: {figures['train'].kept} + {figures['validation'].kept} examples in "
        f"{figures['train'].bins} + {figures['validation'].bins} sequences of up to {train.max_length}."
        + (NOT_PACKED if train.packing and figures["train"].seq2seq else "")
    )
    return StoredBins(address, figures["train"], figures["validation"], shown)


def _encode(
    side: str, rows: Spool, target: Path, base: Path, train: Train, workspace: "Workspace", progress: "Progress"
) -> tuple[SideFigures, dict[str, str]]:
    """Encoded examples in the file `target`, ordered by id; what became of all, and the first one shown."""
    figures = SideFigures()
    shown: dict[str, str] = {}
    with (
        SpoolWriter(target, encoded_schema()) as writer,
        progress.bar(f"{side} side encoded", len(rows)) as bar,
        closing(encoded_blocks(rows, base, train, workspace)) as blocks,
    ):
        for block in blocks:
            writer.add(block.examples)
            figures.add(block.figures)
            shown = shown or block.shown
            bar.update(figures.examples, f"{figures.tokens} tokens")
    return figures, shown


def write_bins(encoded: Spool, target: Path, train: Train, *, packed: bool) -> int:
    """Put the encoded examples together as bins in the file `target`; how many there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if packed:
        lengths = pc.list_value_length(encoded.column("tokens")).to_numpy()
        order, held = pack(lengths, train.max_length)
    else:
        order, held = np.arange(len(encoded)), np.ones(len(encoded), np.int64)
    ends = np.cumsum(held)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, bins_schema()) as writer:
        for start in range(0, len(held), BATCH_BINS):
            some = held[start : start + BATCH_BINS]
            first = ends[start] - held[start]
            writer.write_batch(_joined(encoded.take(order[first : first + some.sum()]), some))
    return len(held)


def bins_schema() -> "pa.Schema":
    """Of bins: tokens of all texts end to end, whether each is learnt, each text's length, each example's id."""
    import pyarrow as pa

    return pa.schema(
        {
            "tokens": pa.list_(pa.int32()),
            "supervised": pa.list_(pa.int8()),
            "lengths": pa.list_(pa.int32()),
            "ids": pa.list_(pa.string()),
            "taught": pa.int32(),
        }
    )


def _joined(examples: "pa.RecordBatch", held: "NDArray[np.int64]") -> "pa.RecordBatch":
    """Bins of the examples, the first of which holds the first `held[0]` of them, and so on."""
    import pyarrow as pa

    last = np.cumsum(held)

    def lists(name: str) -> "pa.ListArray":
        column = examples[name]
        offsets = column.offsets.to_numpy()
        kept = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        return pa.ListArray.from_arrays(np.append(0, offsets[last] - offsets[0]).astype(np.int32), kept)

    columns = [lists(name) for name in ("tokens", "supervised", "lengths")]
    ids = pa.ListArray.from_arrays(np.append(0, last).astype(np.int32), examples["id"])
    starts = columns[1].offsets.to_numpy()[:-1]
    taught = np.add.reduceat(columns[1].values.to_numpy(), starts, dtype=np.int32)
    return pa.RecordBatch.from_arrays([*columns, ids, pa.array(taught)], schema=bins_schema())


def _stored(workspace: "Workspace", address: str) -> StoredBins | None:
    if not workspace.holds(f"{address}/{FIGURES}"):
        return None
    try:
        notes = json.loads((workspace.fetch(address) / FIGURES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sides = {side: SideFigures(**figures) for side, figures in notes["sides"].items()}
    return StoredBins(address, sides["train"], sides["validation"], notes["example"])
