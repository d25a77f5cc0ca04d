"""The rows of a split as its verifier holds them: hashed keys in arrays, texts in a file, no object a row."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from pipelines.data.example import Turn, text_of
from pipelines.data.leaks.text_store import Kind, Sets, TextStore
from pipelines.data.profile import prompt_of
from pipelines.data.similarity.duplicates import SHORT_WORDS, normalise

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SIDE_NAMES = ("train", "validation", "test", "benchmark")
"""By code, in the order in which they give way: what leaks is held out of the earlier one."""
TRAIN, BENCHMARK = 0, 3
NOWHERE = -1
"""On no side: held out, or not placed yet."""

_AT_ONCE = 2048


@dataclass(frozen=True)
class Placed:
    """Rows and their sides, and behind them the items of benchmark sets."""

    ids: "pa.ChunkedArray"
    side: "NDArray[np.int64]"
    """Code into SIDE_NAMES, or NOWHERE."""
    keys: "dict[str, NDArray[np.uint64]]"
    """id, text, prompt, group, cluster -> 64 bits of a hash of each row's; 0: it has none. Two of a million different
    ones are the same with a probability of 3e-8."""
    words: "NDArray[np.int64]"
    """Of each normalised text."""
    texts: TextStore = field(repr=False)
    rows: int
    """Of the split; the numbers from here on are benchmark items."""
    questions: "Questions | None" = None
    """What the rows ask by itself, where there are items to compare it with."""

    def __len__(self) -> int:
        return len(self.side)

    @property
    def short(self) -> "NDArray[np.bool_]":
        """Texts that are compared by their characters."""
        found: NDArray[np.bool_] = self.words < SHORT_WORDS
        return found

    def on(self, side: "NDArray[Any]") -> "Placed":
        """The same rows on other sides: a code for each row of the split; one of no side is NOWHERE."""
        import numpy as np

        codes = side.astype(np.int64)
        return self._with(np.where((codes >= 0) & (codes < BENCHMARK), codes, NOWHERE), self.side[self.rows :])

    def apart(self, number: "NDArray[Any]") -> "Placed":
        """The same rows, each number from 0 a side of its own, and no benchmarks."""
        import numpy as np

        return replace(self._with(number.astype(np.int64), np.full(len(self) - self.rows, NOWHERE)), questions=None)

    def _with(self, own: "NDArray[np.int64]", theirs: "NDArray[np.int64]") -> "Placed":
        import numpy as np

        assert len(own) == self.rows, f"{len(own)} sides for {self.rows} rows"
        return replace(self, side=np.concatenate((own, theirs)))

    def once_a_side(self) -> "NDArray[np.bool_]":
        """The first row of each text on each side."""
        import numpy as np

        order = np.lexsort((self.side, self.keys["text"]))
        text, side = self.keys["text"][order], self.side[order]
        first = np.ones(len(order), bool)
        first[1:] = (text[1:] != text[:-1]) | (side[1:] != side[:-1])
        chosen = np.zeros(len(order), bool)
        chosen[order[first & (side != NOWHERE)]] = True
        return chosen

    def sets(self, kind: Kind, wanted: "NDArray[np.bool_]") -> Iterator[Sets]:
        """The sets of the wanted rows' texts."""
        return self.texts.sets(kind, wanted)


@dataclass(frozen=True)
class Questions:
    """What rows ask, without the answers that hide it from a comparison of whole texts; and the same items."""

    placed: Placed
    """Its rows are questions, on no side yet."""
    row: "NDArray[np.int64]"
    """Of each question, in which row it is asked."""


def read_placed(
    batches: "Iterable[pa.RecordBatch]",
    instruction: str = "",
    benchmarks: "Iterable[tuple[str, str]]" = (),
    shared_prompts: int = 1,
) -> Placed:
    """The rows of `batches` in their order: columns id and messages; group, cluster and split where they are known.

    `benchmarks`: (name, text) of each item that training must not have seen. `shared_prompts`: a prompt of more rows
    than these is an instruction, which is nobody's key.
    """
    import numpy as np
    import pyarrow as pa

    items = iter(benchmarks)
    waiting = list(islice(items, 1))
    texts, asked, asking = _Texts(), _Texts(), _Numbers()
    ids: list[Any] = []
    side: list[Any] = []
    keys: dict[str, list[Any]] = {name: [] for name in ("id", "group", "cluster", "prompt")}
    for batch in batches:
        ids.append(batch.column("id").cast(pa.string()))
        for name in ("id", "group", "cluster"):
            keys[name].append(_keys_of(batch, name))
        side.append(_sides_of(batch))
        for start in range(0, len(batch), _AT_ONCE):
            messages = batch.column("messages").slice(start, _AT_ONCE).to_pylist()
            turns = [json.loads(each) for each in messages]
            first = len(texts.store)
            texts.add([normalise(text_of(each, instruction)) for each in turns])
            keys["prompt"].append(_prompt_keys(turns, instruction))
            if waiting:
                questions = [_questions(each, instruction) for each in turns]
                asked.add([text for each in questions for text in each])
                asking.add(first, [len(each) for each in questions])
    rows = len(texts.store)
    names: list[str] = []
    for part in _parts(chain(waiting, items)):
        normals = [normalise(text) for _, text in part]
        texts.add(normals)
        asked.add(normals)
        names += [name for name, _ in part]
    ids.append(pa.array(names, pa.string()))
    side.append(np.full(len(names), BENCHMARK))
    for found in keys.values():
        found.append(np.zeros(len(names), np.uint64))
    hashes = {name: np.concatenate([np.zeros(0, np.uint64), *found]) for name, found in keys.items()}
    return Placed(
        ids=pa.chunked_array(ids, pa.string()),
        side=np.concatenate(side).astype(np.int64),
        keys=hashes | {"text": texts.keys, "prompt": _at_most(hashes["prompt"], shared_prompts)},
        words=texts.store.lengths,
        texts=texts.store,
        rows=rows,
        questions=asked.questions(asking.all, names) if names else None,
    )


class _Texts:
    """Texts and their keys, as they are read."""

    def __init__(self) -> None:
        self.store = TextStore()
        self._keys: list[NDArray[np.uint64]] = []

    def add(self, normals: list[str]) -> None:
        self.store.add(normals)
        self._keys.append(_hashes(normals))

    @property
    def keys(self) -> "NDArray[np.uint64]":
        import numpy as np

        return np.concatenate([np.zeros(0, np.uint64), *self._keys])

    def questions(self, row: "NDArray[np.int64]", items: list[str]) -> Questions:
        """These texts as the questions of rows, and behind them the items."""
        import numpy as np
        import pyarrow as pa

        placed = Placed(
            ids=pa.chunked_array([pa.nulls(len(row), pa.string()), pa.array(items, pa.string())]),
            side=np.concatenate((np.full(len(row), NOWHERE), np.full(len(items), BENCHMARK))),
            keys={"text": self.keys},
            words=self.store.lengths,
            texts=self.store,
            rows=len(row),
        )
        return Questions(placed, row)


class _Numbers:
    """For each question the number of its row."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []

    def add(self, first: int, counts: list[int]) -> None:
        import numpy as np

        self._parts.append(np.repeat(first + np.arange(len(counts)), counts))

    @property
    def all(self) -> "NDArray[np.int64]":
        import numpy as np

        return np.concatenate([np.zeros(0, np.int64), *self._parts])


def _questions(turns: list[Turn], instruction: str) -> list[str]:
    """What a conversation asks, turn by turn, normalised: a question in its midst was learnt as well."""
    prefix = f"{instruction}\n\n" if instruction else ""
    asked = [normalise(turn["content"].removeprefix(prefix)) for turn in turns if turn["role"] == "user"]
    return [text for text in dict.fromkeys(asked) if text]


def _prompt_keys(conversations: list[list[Turn]], instruction: str) -> "NDArray[np.uint64]":
    """64 bits of each prompt, 0 for one without a word."""
    import numpy as np

    prompts = [normalise(prompt_of(turns, instruction)) for turns in conversations]
    return np.where([bool(prompt) for prompt in prompts], _hashes(prompts), np.uint64(0))


def _at_most(key: "NDArray[np.uint64]", most: int) -> "NDArray[np.uint64]":
    """The keys, 0 where more rows than `most` have the same."""
    import numpy as np

    _, number, counts = np.unique(key, return_inverse=True, return_counts=True)
    return np.where(counts[number] <= most, key, np.uint64(0))


def _parts(items: "Iterable[tuple[str, str]]") -> "Iterator[list[tuple[str, str]]]":
    waiting = iter(items)
    while part := list(islice(waiting, _AT_ONCE)):
        yield part


def _sides_of(batch: "pa.RecordBatch") -> "NDArray[np.int64]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if "split" not in batch.schema.names:
        return np.full(len(batch), NOWHERE)
    found = pc.index_in(batch.column("split").cast(pa.string()), pa.array(SIDE_NAMES[:BENCHMARK]))
    codes: NDArray[np.int64] = found.fill_null(NOWHERE).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _keys_of(batch: "pa.RecordBatch", name: str) -> "NDArray[np.uint64]":
    import numpy as np
    import pyarrow as pa

    if name not in batch.schema.names:
        return np.zeros(len(batch), np.uint64)
    encoded = batch.column(name).cast(pa.string()).dictionary_encode()
    values = encoded.dictionary.to_pylist()
    # Behind the last one, where -1 points: rows that have none.
    hashes = np.append(_hashes(values), np.uint64(0))
    hashes[:-1][[not value for value in values]] = 0
    found: NDArray[np.uint64] = hashes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return found


def _hashes(texts: list[str]) -> "NDArray[np.uint64]":
    """64 bits of BLAKE2b of each, never 0."""
    import numpy as np

    data = b"".join(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.maximum(np.frombuffer(data, "<u8").astype(np.uint64), np.uint64(1))
