"""A small language model of the answers, and what each answer costs under it: bits a word, out of fold.

Trigrams over bigrams over single words, each level smoothed with the one below (Witten and Bell 1991), and a cache
of the words of the row's own prompt (Kuhn and De Mori 1990): an answer may well speak of what was asked.
"""

from typing import TYPE_CHECKING

from pipelines.data.anomaly.counts import FoldCounts
from pipelines.data.anomaly.word_ids import Words, mixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VOCABULARY = 2**18
"""Words among which an unseen one's probability is divided."""
SMOOTHING = 4.0
"""How many observations the level below counts as."""
CACHE = 0.3
"""Weight of the prompt's own words."""


class WordModel:
    """Counts of word sequences by fold."""

    def __init__(self) -> None:
        self._levels = [FoldCounts(20), FoldCounts(22), FoldCounts(22)]
        self._histories = [FoldCounts(12), FoldCounts(20), FoldCounts(22)]

    def add(self, answers: Words, fold: "NDArray[np.int8]") -> None:
        """Learn from answers; `fold` is that of each text."""
        folds = fold[answers.row]
        for level, (history, keys) in enumerate(_keys(answers)):
            self._levels[level].add(keys, folds)
            self._histories[level].add(history, folds)

    def loss(self, prompts: Words, answers: Words, fold: "NDArray[np.int8]") -> "NDArray[np.float64]":
        """Bits per word of each answer under what was learnt in other folds; NaN for an answer without words."""
        import numpy as np

        folds = fold[answers.row]
        probability = np.full(len(answers.ids), 1 / VOCABULARY, np.float64)
        for level, (history, keys) in enumerate(_keys(answers)):
            seen = self._levels[level].elsewhere(keys, folds)
            of = self._histories[level].elsewhere(history, folds)
            probability = np.minimum(1, (seen + SMOOTHING * probability) / (np.maximum(of, seen) + SMOOTHING))
        cached, has_words = _in_prompt(prompts, answers)
        weight = np.where(has_words, CACHE, 0.0)
        bits = -np.log2((1 - weight) * probability + weight * cached)
        words = answers.counts
        with np.errstate(invalid="ignore"):
            loss: NDArray[np.float64] = np.bincount(answers.row, bits, minlength=answers.texts) / words
        return loss


def _keys(words: Words) -> "list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]":
    """For each level (history, history and word) of every word; histories do not reach into another text."""
    import numpy as np

    none = np.zeros(len(words.ids), np.uint64)
    one, two = none.copy(), none.copy()
    one[1:] = np.where(words.row[1:] == words.row[:-1], words.ids[:-1], np.uint64(0))
    two[2:] = np.where(words.row[2:] == words.row[:-2], words.ids[:-2], np.uint64(0))
    both = mixed(one + np.uint64(3) * mixed(two))
    return [(history, mixed(history + np.uint64(5)) ^ words.ids) for history in (none, one, both)]


def _in_prompt(prompts: Words, answers: Words) -> "tuple[NDArray[np.float64], NDArray[np.bool_]]":
    """For each word of the answers its share among its own prompt's words, and whether the prompt has words."""
    import numpy as np

    asked = np.sort(mixed(prompts.ids + _of_row(prompts)))
    wanted = mixed(answers.ids + _of_row(answers))
    found = np.searchsorted(asked, wanted, side="right") - np.searchsorted(asked, wanted, side="left")
    size = prompts.counts[answers.row]
    return found / np.maximum(size, 1), size > 0


def _of_row(words: Words) -> "NDArray[np.uint64]":
    import numpy as np

    return mixed(words.row.astype(np.uint64) + np.uint64(7))
