"""Duplicates by meaning: texts as mean-pooled hidden states of a model, the pairs whose cosine is high."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.settings import Settings
from pipelines.data.corpus import Corpus
from pipelines.data.example import text_of
from pipelines.data.similarity.edges import Edges, joined
from pipelines.models.load import find_base, load_model, load_tokenizer
from pipelines.models.precision import native_arithmetic
from pipelines.progress import Bar, Progress
from pipelines.recipe import BaseModelChoice
from pipelines.recipe_data import Semantic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TOKENS = 512
"""Tokens of a text that are looked at."""
TOKENS_AT_ONCE = 8192
"""Tokens of one forward pass, padding included."""
BLOCK = 2048
"""Vectors that are multiplied with as many others at once."""
MOST_EDGES = 4_000_000
"""Pairs that are held; beyond these the strongest that connect the same texts are kept."""


@dataclass(frozen=True)
class Vectors:
    """What texts mean, as a model sees it."""

    units: "NDArray[np.float32]"
    """A vector for each text, of length one."""
    mean: "NDArray[np.float32]"
    """What was taken off all of them: off others too that are to be compared with them."""


def semantic_edges(
    corpus: Corpus,
    rows: "NDArray[np.int64]",
    semantic: Semantic,
    base: BaseModelChoice | None,
    instruction: str,
    progress: Progress,
) -> tuple[Edges, Vectors]:
    """The pairs of `rows` (ascending) that mean the same, with their cosine; exact: each is compared with each.

    And the vectors that they were found by. The states are those of `semantic.model`, or of `base`. Raises UserError
    when the model is nowhere.
    """
    import numpy as np

    folder = model_folder(semantic, base)
    with tempfile.TemporaryDirectory(prefix="sluice-vectors-") as scratch:
        # The file has no name any more when it is read again, and ends with the last who holds it.
        vectors = embed(corpus, rows, folder, instruction, progress, Path(scratch) / "vectors.npy")
    places = similar_pairs(vectors.units, semantic.threshold, progress)
    rows = np.asarray(rows)
    return Edges(rows[places.left], rows[places.right], places.similarity), vectors


def model_folder(semantic: Semantic, base: BaseModelChoice | None) -> Path:
    """Where the model lies whose states are taken. Raises UserError when it is nowhere."""
    choice = BaseModelChoice(base=semantic.model) if semantic.model else base
    assert choice is not None, "a search by meaning needs a model"
    return find_base(choice, Settings.from_environment()).folder


def embed(
    corpus: Corpus, rows: "NDArray[np.int64]", folder: Path, instruction: str, progress: Progress, file: Path
) -> Vectors:
    """A unit vector for each of `rows`, kept in `file`; of a text without tokens it is 0.

    The states of a causal model lie in a narrow cone, in which strangers have a cosine of .9 and more: the mean of
    all vectors is taken off (Mu and Viswanath, "All-but-the-top", 2018).
    """
    import numpy as np

    states = _States(folder)
    vectors = np.lib.format.open_memmap(file, "w+", np.float32, (len(rows), states.size))
    total, done = np.zeros(states.size), 0
    with progress.bar("texts embedded", total=len(rows)) as bar:
        for texts in _texts(corpus, rows, instruction):
            part = states.of(texts, bar, done)
            vectors[done : done + len(texts)] = part
            total += part.sum(axis=0, dtype=np.float64)
            done += len(texts)
    mean = (total / max(1, len(rows))).astype(np.float32)
    for start in range(0, len(rows), BLOCK):
        _to_units(vectors[start : start + BLOCK], mean)
    return Vectors(vectors, mean)


def embed_texts(
    texts: list[str], folder: Path, mean: "NDArray[np.float32]", progress: Progress
) -> "NDArray[np.float32]":
    """A unit vector for each text, to be compared with those that `embed` left with this `mean`."""
    import numpy as np

    states, parts = _States(folder), []
    with progress.bar("items embedded", total=len(texts)) as bar:
        for start in range(0, len(texts), BLOCK):
            parts.append(states.of(texts[start : start + BLOCK], bar, start))
            _to_units(parts[-1], mean)
    return np.concatenate([np.zeros((0, states.size), np.float32), *parts])


def _to_units(block: "NDArray[np.float32]", mean: "NDArray[np.float32]") -> None:
    """Take the mean off in place, and make each vector one long."""
    import numpy as np

    # A vector of nothing stays nothing.
    block[np.any(block, axis=1)] -= mean
    length = np.linalg.norm(block, axis=1, keepdims=True)
    np.divide(block, length, out=block, where=length > 1e-6)


class _States:
    """The model, loaded once."""

    def __init__(self, folder: Path) -> None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder, native_arithmetic(device)).to(device)  # type: ignore[arg-type]
        self.size = int(self._model.config.get_text_config().hidden_size)

    def of(self, texts: list[str], bar: Bar, done: int) -> "NDArray[np.float32]":
        """The mean hidden state of each text; `done` texts came before, for the bar."""
        encoded = self._tokenizer(texts, truncation=True, max_length=MOST_TOKENS, add_special_tokens=False)
        return _pooled(self._model, encoded["input_ids"], bar, done)


def similar_pairs(vectors: "NDArray[np.float32]", threshold: float, progress: Progress) -> Edges:
    """The pairs of unit vectors whose cosine is at least `threshold`, by their places.

    Of more than MOST_EDGES those of a spanning forest, the most similar first: they connect what all would.
    """
    import numpy as np

    starts = range(0, len(vectors), BLOCK)
    found: list[Edges] = []
    with progress.bar("meanings compared (blocks)", total=len(starts)) as bar:
        for step, start in enumerate(starts, 1):
            block = np.asarray(vectors[start : start + BLOCK])
            for other in range(start, len(vectors), BLOCK):
                cosine = block @ np.asarray(vectors[other : other + BLOCK]).T
                # In 32 bits equal vectors may miss 1 by a little.
                left, right = np.nonzero(cosine >= threshold - 1e-6)
                later = left + start < right + other
                left, right = left[later], right[later]
                found.append(Edges(left + start, right + other, cosine[left, right].astype(np.float64)))
                if sum(len(part.left) for part in found) > MOST_EDGES:
                    found = [_forest(joined(found), len(vectors))]
            bar.update(step, note=f"{sum(len(part.left) for part in found):,} pairs")
    return joined(found)


def _forest(edges: Edges, size: int) -> Edges:
    """The edges of a spanning forest, the most similar first."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    # A weight of 0 would be no edge.
    graph = coo_matrix((2 - edges.similarity, (edges.left, edges.right)), shape=(size, size))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    return Edges(tree.row.astype(np.int64), tree.col.astype(np.int64), 2 - tree.data)


def _texts(corpus: Corpus, rows: "NDArray[np.int64]", instruction: str) -> Iterator[list[str]]:
    """What is said in `rows`, in their order, some thousands at a time."""
    import numpy as np

    start = 0
    for batch in corpus.batches(["messages"]):
        own = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(batch))] - start
        messages = batch["messages"].take(own).to_pylist()
        start += len(batch)
        if messages:
            yield [text_of(json.loads(text), instruction) for text in messages]


def _pooled(model: Any, encoded: list[list[int]], bar: Bar, done: int) -> "NDArray[np.float32]":
    """The mean of each text's last hidden states."""
    import numpy as np
    import torch

    # Of an encoder-decoder what the encoder makes of the text.
    states_of = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    vectors = np.zeros((len(encoded), model.config.get_text_config().hidden_size), np.float32)
    # Texts of like length together: little padding.
    order = [place for place in np.argsort([len(ids) for ids in encoded], kind="stable").tolist() if encoded[place]]
    tokens, started = 0, time.monotonic()
    while order:
        longest = len(encoded[order[-1]])
        places = order[-max(1, TOKENS_AT_ONCE // longest) :]
        del order[-len(places) :]
        ids = torch.zeros((len(places), longest), dtype=torch.long)
        mask = torch.zeros((len(places), longest), dtype=torch.long)
        for line, place in enumerate(places):
            ids[line, : len(encoded[place])] = torch.tensor(encoded[place])
            mask[line, : len(encoded[place])] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        with torch.inference_mode():
            states = states_of(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state.float()
        weights = mask.unsqueeze(-1)
        vectors[places] = ((states * weights).sum(dim=1) / weights.sum(dim=1)).cpu().numpy()
        tokens += int(mask.sum())
        bar.update(done + len(encoded) - len(order), note=f"{tokens / (time.monotonic() - started):,.0f} tokens/s")
    return vectors
