"""Rows to tokens: what is kept of each example, what the model learns of it, and what became of the rest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from pipelines.data.chat import Encoded, encode
from pipelines.data.seq2seq import has_earlier_answers, is_seq2seq
from pipelines.recipe import Train

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SAMPLES = 5
"""Ids that are kept of a figure."""


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
        if len(kept) < MOST_SAMPLES:
            kept.append(example)

    def add(self, later: "SideFigures") -> None:
        """Count in what became of the examples after these."""
        for each in fields(self):
            if each.name == "samples":
                continue
            ours, theirs = getattr(self, each.name), getattr(later, each.name)
            setattr(self, each.name, ours or theirs if each.name == "seq2seq" else ours + theirs)
        for figure, examples in later.samples.items():
            self.samples[figure] = [*self.samples.get(figure, []), *examples][:MOST_SAMPLES]


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


@dataclass
class Block:
    """Some rows encoded."""

    examples: "pa.RecordBatch"
    """Those that can be learnt from, as `encoded_schema` has them."""
    figures: SideFigures
    shown: dict[str, str]
    """The first of them with its mask, for people; {} without any."""


def encode_block(tokenizer: Any, rows: "pa.RecordBatch", train: Train) -> Block:
    """The rows (the columns of `read_columns`) encoded in their order.

    Raises UserError where no token could be trusted (see `chat.encode`), and for an over-long example when the recipe
    says so.
    """
    import pyarrow as pa

    values = [rows[name].to_pylist() for name in read_columns(train)]
    kept, figures = encode_texts(tokenizer, list(zip(*values, strict=True)), train)
    columns = {
        "id": [example for example, _ in kept],
        "tokens": [[token for text in texts for token in text.tokens] for _, texts in kept],
        # A text's first token follows the one before it in the bin: never a target.
        "supervised": [
            [taught for text in texts for taught in (0, *map(int, text.supervised[1:]))] for _, texts in kept
        ],
        "lengths": [[len(text.tokens) for text in texts] for _, texts in kept],
    }
    schema = encoded_schema()
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return Block(pa.RecordBatch.from_arrays(arrays, schema=schema), figures, _show(tokenizer, *kept[0]) if kept else {})


def read_columns(train: Train) -> tuple[str, ...]:
    """The columns of the split that examples are made of."""
    return ("id", "messages", *(("rejected",) if train.learns_from_pairs else ()))


def encoded_schema() -> "pa.Schema":
    """Of encoded examples: tokens of all texts end to end, whether each is learnt, and each text's length."""
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "tokens": pa.list_(pa.int32()),
            "supervised": pa.list_(pa.int8()),
            "lengths": pa.list_(pa.int32()),
        }
    )


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
