"""Bins: a split's side encoded, packed and stored once, then read by number from a memory map.

A bin is one row for the model: the tokens of one or more examples, end to end. Every worker opens the
same file and reads its own bins, so any number of workers sees the same bins in the same steps.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines.data.chat import ENCODING_VERSION, Encoded, encode
from pipelines.data.packing import pack, shuffled
from pipelines.data.seq2seq import has_earlier_answers, is_seq2seq
from pipelines.fingerprint import fingerprint, short
from pipelines.recipe import Train

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.progress import Progress
    from pipelines.workspace import Workspace

BINS_VERSION = 1
"""Part of the bins' key: raise it when their layout changes."""

NOT_PACKED = " The base is an encoder-decoder: packing does not apply, examples of like length share a pass."


@dataclass
class SideFigures:
    """What became of one side's examples."""

    examples: int = 0
    """Rows that came in."""
    kept: int = 0
    bins: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    overlong: int = 0
    """Examples longer than max_length."""
    dropped: int = 0
    truncated: int = 0
    tokens_lost: int = 0
    """Tokens of dropped examples and cut ends."""
    untaught: int = 0
    """Examples that teach nothing: left out."""
    unended: int = 0
    """Examples in whose answers the end token is not supervised (cut off, or the template has none)."""
    escaped: int = 0
    """Special tokens that stood in the text and were made plain text."""
    earlier_answers: int = 0
    """Examples with answers before the last, which an encoder-decoder reads and does not learn."""
    seq2seq: bool = False
    """Each example is a source and a target, as an encoder-decoder reads them: packing does not apply."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """Figure -> ids of a few of its examples."""

    def note(self, figure: str, example: str, count: int = 1) -> None:
        """Count an example under a figure and keep its id as a sample."""
        setattr(self, figure, getattr(self, figure) + count)
        kept = self.samples.setdefault(figure, [])
        if len(kept) < 5:
            kept.append(example)


def bins_key(split: str, base: str, train: Train) -> str:
    """Fingerprint of everything that the bins depend on: trials with the same input settings share them."""
    settings: list[Any] = [train.max_length, train.packing, train.on_overlong]
    # Of a preference pair both answers are encoded.
    settings += ["pairs"] if train.learns_from_pairs else []
    return fingerprint(BINS_VERSION, ENCODING_VERSION, split, base, settings)


def fit_length(encoded: Encoded, limit: int, policy: str) -> Encoded | None:
    """The example within `limit` tokens: itself, cut at the end, or None when it is dropped."""
    if len(encoded.tokens) <= limit:
        return encoded
    if policy == "truncate":
        supervised = encoded.supervised[:limit]
        return Encoded(encoded.tokens[:limit], supervised, False, encoded.escaped)
    return None


def encode_side(
    tokenizer: Any, rows: Sequence[tuple[str, str]], train: Train
) -> tuple[list[tuple[str, Encoded]], SideFigures]:
    """The encoded examples of (id, messages as JSON) rows that can be learnt from, and what became of the rest.

    Raises UserError for an over-long example when the recipe says so.
    """
    figures, kept = SideFigures(seq2seq=is_seq2seq(tokenizer)), []
    for example, messages in rows:
        figures.examples += 1
        turns = json.loads(messages)
        whole = encode(tokenizer, turns)
        fitted = fit_length(whole, train.max_length, train.on_overlong)
        if fitted is not whole:
            if fitted is not None and not any(fitted.supervised[1:]):
                # The cut left nothing of the answer.
                fitted = None
            if train.on_overlong == "raise":
                raise UserError(
                    f"Example {example} has {len(whole.tokens)} tokens; train.max_length is {train.max_length}.",
                    "Raise train.max_length, or set train.on_overlong to drop or truncate.",
                )
            figures.note("overlong", example)
            figures.note("dropped" if fitted is None else "truncated", example)
            figures.tokens_lost += len(whole.tokens) - (len(fitted.tokens) if fitted else 0)
        if whole.escaped:
            figures.note("escaped", example, whole.escaped)
        if fitted is None:
            continue
        # The first token of a row is predicted by nothing, so it teaches nothing either.
        if not any(fitted.supervised[1:]):
            figures.note("untaught", example)
            continue
        if not fitted.ends:
            figures.note("unended", example)
        if figures.seq2seq and has_earlier_answers(turns):
            figures.note("earlier_answers", example)
        figures.kept += 1
        figures.tokens += len(fitted.tokens)
        figures.supervised_tokens += sum(fitted.supervised[1:])
        kept.append((example, fitted))
    return kept, figures


def encode_texts(
    tokenizer: Any, rows: Sequence[tuple[str, ...]], train: Train
) -> tuple[list[tuple[str, tuple[Encoded, ...]]], SideFigures]:
    """The texts that stay together in a bin: an example's one, or the two of a preference pair."""
    if train.learns_from_pairs:
        from pipelines.training.pairs import encode_pairs

        pairs, figures = encode_pairs(tokenizer, rows, train)
        return [(example, texts) for example, texts in pairs], figures
    kept, figures = encode_side(tokenizer, [(row[0], row[1]) for row in rows], train)
    return [(example, (encoded,)) for example, encoded in kept], figures


def build_bins(
    tokenizer: Any, rows: Sequence[tuple[str, ...]], train: Train
) -> "tuple[pa.Table, SideFigures, dict[str, str]]":
    """Bins as a table, what became of the examples, and one example shown with its mask."""
    import pyarrow as pa

    kept, figures = encode_texts(tokenizer, rows, train)
    lengths = [sum(len(encoded.tokens) for encoded in texts) for _, texts in kept]
    alone = figures.seq2seq or not train.packing
    packed = [[i] for i in range(len(kept))] if alone else pack(lengths, train.max_length)
    figures.bins = len(packed)
    columns: dict[str, list[Any]] = {name: [] for name in ("tokens", "supervised", "lengths", "ids", "taught")}
    for examples in packed:
        tokens: list[int] = []
        mask: list[int] = []
        for encoded in (text for number in examples for text in kept[number][1]):
            tokens += encoded.tokens
            # A text's first token follows the one before it in the bin: never a target.
            mask += [0, *map(int, encoded.supervised[1:])]
        columns["tokens"].append(tokens)
        columns["supervised"].append(mask)
        columns["lengths"].append([len(text.tokens) for number in examples for text in kept[number][1]])
        columns["ids"].append([kept[number][0] for number in examples])
        columns["taught"].append(sum(mask))
    schema = {
        "tokens": pa.list_(pa.int32()),
        "supervised": pa.list_(pa.int8()),
        "lengths": pa.list_(pa.int32()),
        "ids": pa.list_(pa.string()),
        "taught": pa.int32(),
    }
    table = pa.table({name: pa.array(columns[name], kind) for name, kind in schema.items()})
    return table, figures, _show(tokenizer, *kept[0]) if kept else {}


def _show(tokenizer: Any, example: str, texts: Sequence[Encoded]) -> dict[str, str]:
    """The example decoded: whole, what of it is supervised, and the whole with that part between marks.

    Of a preference pair the chosen text comes first, then the rejected one.
    """
    shown = [_marked(tokenizer, encoded) for encoded in texts]
    return {"id": example} | {name: "\n".join(text[name] for text in shown) for name in shown[0]}


def _marked(tokenizer: Any, encoded: Encoded) -> dict[str, str]:
    pairs = list(zip(encoded.supervised, encoded.tokens, strict=True))
    spans = [
        (wanted, tokenizer.decode([token for _, token in group])) for wanted, group in groupby(pairs, itemgetter(0))
    ]
    return {
        "text": tokenizer.decode(encoded.tokens),
        "supervised_text": "".join(text for wanted, text in spans if wanted),
        "marked_text": "".join(f"\u27e6{text}\u27e7" if wanted else text for wanted, text in spans),
    }


@dataclass(frozen=True)
class StoredBins:
    """Where the bins are and what went into them."""

    address: str
    """Folder in storage with train.arrow, validation.arrow and figures.json."""
    train: SideFigures
    validation: SideFigures
    example: dict[str, str]


def store_bins(
    workspace: "Workspace",
    key: str,
    tokenizer: Callable[[], Any],
    rows: Callable[[], Mapping[str, Sequence[tuple[str, ...]]]],
    train: Train,
    progress: "Progress",
) -> StoredBins:
    """The stored bins of `key`; tokenizer and rows ({"train": ..., "validation": ...}) are asked for when it is new."""
    import pyarrow as pa

    address = workspace.uri("bins", short(key))
    found = _stored(workspace, address)
    if found:
        progress.say(f"tokens: {found.train.kept} + {found.validation.kept} examples, encoded before.")
        return found
    sides: dict[str, SideFigures] = {}
    example: dict[str, str] = {}
    loaded = tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        for side, side_rows in rows().items():
            table, sides[side], shown = build_bins(loaded, side_rows, train)
            example = example or shown
            with pa.OSFile(f"{scratch}/{side}.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=1024)
        notes = {"sides": {side: asdict(figures) for side, figures in sides.items()}, "example": example}
        Path(scratch, "figures.json").write_text(json.dumps(notes), encoding="utf-8")
        workspace.keep(Path(scratch), "bins", short(key))
    progress.say(
        f"tokens: {sides['train'].kept} + {sides['validation'].kept} examples in "
        f"{sides['train'].bins} + {sides['validation'].bins} sequences of up to {train.max_length}."
        + (NOT_PACKED if train.packing and sides["train"].seq2seq else "")
    )
    return StoredBins(address, sides["train"], sides["validation"], example)


def _stored(workspace: "Workspace", address: str) -> StoredBins | None:
    if workspace.is_local and not Path(address, "figures.json").is_file():
        return None
    try:
        notes = json.loads((workspace.fetch(address) / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sides = {side: SideFigures(**figures) for side, figures in notes["sides"].items()}
    return StoredBins(address, sides["train"], sides["validation"], notes["example"])


@dataclass(frozen=True)
class Bin:
    """One row for the model."""

    tokens: list[int]
    supervised: list[int]
    lengths: list[int]
    ids: list[str]


PADDING_BIN = Bin([0, 0], [0, 0], [2], [])
"""Weighs nothing: fills a step so that every worker runs equally often."""


class BinFile:
    """The bins of one side, read by number."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.taught: list[int] = self._table["taught"].to_pylist()
        """Supervised tokens of each bin."""
        self.sizes: list[int] = pc.list_value_length(self._table["tokens"]).to_pylist()
        """Tokens of each bin."""
        self.examples: list[int] = pc.list_value_length(self._table["ids"]).to_pylist()
        """Examples (or preference pairs) of each bin."""
        self.first_example: list[int] = [0, *accumulate(self.examples)][:-1]
        """Examples before each bin."""

    def __len__(self) -> int:
        return len(self.taught)

    def read(self, number: int | None) -> Bin:
        """A bin; None gives one that weighs nothing."""
        if number is None:
            return PADDING_BIN
        row = self._table.slice(number, 1).to_pylist()[0]
        return Bin(row["tokens"], row["supervised"], row["lengths"], row["ids"])


def step_bins(order: Sequence[int], sizes: Sequence[int], step: int, batch: int) -> list[int | None]:
    """The bins of one optimiser step, longest first, filled to `batch` with None.

    Longest first puts bins of like length into the same forward pass, whatever the number of workers.
    """
    numbers = sorted(order[step * batch : (step + 1) * batch], key=lambda i: (-sizes[i], i))
    return [*numbers, *[None] * (batch - len(numbers))]


def micro_batches(numbers: Sequence[int | None], rank: int, world: int, width: int) -> Iterator[list[int | None]]:
    """One worker's rows of a step, `width` at a time: neighbours in length go to different workers."""
    mine = numbers[rank::world]
    for start in range(0, len(mine), width):
        yield list(mine[start : start + width])


def padding_share(file: BinFile, train: Train, seed: int, workers: int, *, seq2seq: bool = False) -> float:
    """Share of the places in the first epoch's forward passes that hold no token of an example.

    The bins of a pass stand end to end: only what fills the last step up to its bins is padding. An encoder-decoder's
    sources and targets are padded, each to the longest of the pass.
    """
    order, batch, places = shuffled(len(file), seed, 0), train.global_batch_size, 0
    for step in range(-(-len(order) // batch)):
        numbers = step_bins(order, file.sizes, step, batch)
        for rank in range(workers):
            for micro in micro_batches(numbers, rank, workers, train.sequences_per_pass):
                sizes = [len(PADDING_BIN.tokens) if number is None else file.sizes[number] for number in micro]
                if not seq2seq:
                    places += sum(sizes)
                    continue
                targets = [0 if number is None else file.taught[number] for number in micro]
                sources = [size - target for size, target in zip(sizes, targets, strict=True)]
                places += (max(sources) + max(targets)) * len(micro)
    return 1 - sum(file.sizes) / places if places else 0.0
