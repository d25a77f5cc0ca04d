"""Scores of rows that need models of the other rows: learnt from a sample, by fold, then one pass over all."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.anomaly.characters import CharacterModel
from pipelines.data.anomaly.mismatch import FitModel
from pipelines.data.anomaly.word_ids import LONGEST, Words, sequences, words_of
from pipelines.data.anomaly.word_model import WordModel
from pipelines.data.corpus import Corpus
from pipelines.data.example import Turn
from pipelines.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 50_000
"""Rows that models learn from, at most: one of a cluster."""
BATCH = 4096
"""Rows that are scored together."""
BOILERPLATE_WORDS = 8
"""Words of an opening or a closing."""
END = 500
"""Characters at an answer's end in which they stand."""
NO_WORDS = 0
"""Opening and closing of an answer with fewer."""


@dataclass(frozen=True)
class Scores:
    """A value for each row of a corpus; NaN where there is none."""

    surprise: "NDArray[np.float32]"
    """Bits a character of the answer."""
    loss: "NDArray[np.float32]"
    """Bits a word of the answer."""
    fit: "NDArray[np.float32]"
    """Logarithm of the odds that the answer is its prompt's own and no other's."""
    opening: "NDArray[np.uint64]"
    """Hash of the answer's first BOILERPLATE_WORDS words."""
    closing: "NDArray[np.uint64]"
    """The same of its last."""


@dataclass(frozen=True)
class _Models:
    """What is learnt; None where nobody asked for its scores."""

    characters: CharacterModel | None
    words: WordModel | None
    fit: FitModel | None


def scored_rows(
    corpus: Corpus,
    fold: "NDArray[np.int8]",
    learn_from: "NDArray[np.int64]",
    kinds: Collection[str],
    *,
    instruction: str,
    seed: int,
    progress: Progress,
) -> Scores:
    """The scores of every row that `kinds` (of suspects) need; `learn_from`: rows to learn from, if few enough."""
    import numpy as np

    models = _learnt(corpus, fold, _sample(learn_from, seed), kinds, instruction, seed)
    size = len(corpus)
    found = Scores(
        surprise=np.full(size, np.nan, np.float32),
        loss=np.full(size, np.nan, np.float32),
        fit=np.full(size, np.nan, np.float32),
        opening=np.full(size, NO_WORDS, np.uint64),
        closing=np.full(size, NO_WORDS, np.uint64),
    )
    with progress.bar("Looking for unusual rows", size) as bar:
        for start, prompts, answers, closings in _texts(corpus, instruction):
            here = slice(start, start + len(prompts))
            if models.characters:
                found.surprise[here] = models.characters.surprise(answers, fold[here])
            _score_words(found, here, models, words_of(prompts), words_of(answers), fold[here])
            if "boilerplate" in kinds:
                found.opening[here], found.closing[here] = _ends(answers, closings)
            bar.update(here.stop)
    return found


def texts_of_row(turns: Sequence[Turn], instruction: str) -> tuple[str, str]:
    """(what the user said, what was answered) in a whole conversation, without the recipe's instruction."""
    prefix = f"{instruction}\n\n" if instruction else ""
    prompt = "\n".join(turn["content"].removeprefix(prefix) for turn in turns if turn["role"] == "user")
    return prompt, "\n".join(turn["content"] for turn in turns if turn["role"] == "assistant")


def _score_words(
    found: Scores, here: slice, models: _Models, prompts: Words, answers: Words, fold: "NDArray[np.int8]"
) -> None:
    if models.words:
        found.loss[here] = models.words.loss(prompts, answers, fold)
    if models.fit:
        found.fit[here] = models.fit.fit(prompts, answers, fold)


def _sample(rows: "NDArray[np.int64]", seed: int) -> "NDArray[np.int64]":
    import numpy as np

    if len(rows) <= SAMPLE:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, SAMPLE, replace=False))


def _learnt(
    corpus: Corpus,
    fold: "NDArray[np.int8]",
    sample: "NDArray[np.int64]",
    kinds: Collection[str],
    instruction: str,
    seed: int,
) -> _Models:
    import numpy as np

    if not {"gibberish", "loss", "mismatch"} & set(kinds):
        return _Models(None, None, None)
    prompts: list[str] = []
    answers: list[str] = []
    for _, asked, given, _ in _texts(corpus, instruction, sample):
        prompts += asked
        answers += given
    folds = fold[sample]
    characters = CharacterModel() if "gibberish" in kinds else None
    if characters:
        for start in range(0, len(answers), BATCH):
            characters.add(answers[start : start + BATCH], folds[start : start + BATCH])
    fit, words = None, None
    if {"loss", "mismatch"} & set(kinds):
        known_prompts, known_answers = words_of(prompts), words_of(answers)
        if "loss" in kinds:
            words = WordModel()
            words.add(known_answers, folds)
        if "mismatch" in kinds:
            fit = FitModel(known_prompts, known_answers, folds, seed)
    assert len(answers) == len(np.unique(sample))
    return _Models(characters, words, fit)


def _texts(
    corpus: Corpus, instruction: str, rows: "NDArray[np.int64] | None" = None
) -> Iterator[tuple[int, list[str], list[str], list[str]]]:
    """(first row, prompts, answers, their ends) batch by batch, cut at what is looked at; of ascending `rows` only."""
    import numpy as np
    import pyarrow as pa

    start = 0
    for batch in corpus.batches(["messages"], BATCH):
        column = batch["messages"]
        if rows is not None:
            low, high = np.searchsorted(rows, (start, start + len(column)))
            column = column.take(pa.array(rows[low:high] - start))
        pairs = [texts_of_row(json.loads(text), instruction) for text in column.to_pylist()]
        # Cut here: as many whole answers as models learn from may be gigabytes.
        asked, given = ([pair[side][:LONGEST] for pair in pairs] for side in (0, 1))
        yield start, asked, given, [pair[1][-END:] for pair in pairs]
        start += len(batch)


def _ends(answers: Sequence[str], closings: Sequence[str]) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    """Hashes of the first and the last words of each answer; NO_WORDS for one with fewer than BOILERPLATE_WORDS."""
    import numpy as np

    first, last = np.full(len(answers), NO_WORDS, np.uint64), np.full(len(answers), NO_WORDS, np.uint64)
    # Of what is written twice to a place the last stays.
    keys, row = sequences(words_of(answers), BOILERPLATE_WORDS)
    first[row[::-1]] = keys[::-1]
    keys, row = sequences(words_of(closings), BOILERPLATE_WORDS)
    last[row] = keys
    return first, last
