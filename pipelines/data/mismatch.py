"""How well an answer fits its own prompt, by several measures that are each weak alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.vectors import LatentSpace, TextSpace, unit
from pipelines.data.word_ids import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RIDGE = 3.0
"""Penalty of the regression from a prompt's vector to its answer's."""
NEIGHBOURS = 8
"""Nearest prompts whose answers an answer is compared with: the nearest of each of so many parts of the references."""
REFERENCES = 10_000
"""Rows of the sample that neighbours are looked for among."""
MEASURES = ("cosine", "latent", "prediction", "choice", "neighbours")


@dataclass(frozen=True)
class _Fold:
    """What the other folds teach about one."""

    weights: "NDArray[np.float32]"
    """From a prompt's latent vector to its answer's."""
    answers_mean: "NDArray[np.float32]"
    answers_spread: "NDArray[np.float32]"
    predictions_mean: "NDArray[np.float32]"
    predictions_spread: "NDArray[np.float32]"
    references: "list[tuple[NDArray[np.float32], NDArray[np.float32]]]"
    """Prompts and answers, in NEIGHBOURS parts."""


class FitModel:
    """Learnt from a sample of rows; judges any row by what other folds than its own have taught."""

    def __init__(self, prompts: Words, answers: Words, fold: "NDArray[np.int8]", seed: int) -> None:
        import numpy as np

        both = _joined(prompts, answers)
        self._space = TextSpace(both)
        self._latent = LatentSpace(self._space, both, seed)
        asked, given = (self._latent.of(self._space.tfidf(words)) for words in (prompts, answers))
        order = np.random.default_rng(seed).permutation(len(fold))
        self._folds = {
            int(one): _fold(asked[others], given[others])
            for one in range(int(fold.max(initial=0)) + 1)
            if len(others := order[fold[order] != one])
        }

    def measure(self, prompts: Words, answers: Words, fold: "NDArray[np.int8]") -> "NDArray[np.float32]":
        """(rows, MEASURES): the higher, the better the answer fits.

        cosine: of the TF-IDF vectors of prompt and answer; latent: the same in the latent space; prediction: how
        much nearer the answer is to what its prompt predicts than other answers are; choice: how much nearer
        that prediction is to the answer than other prompts' are; both in standard deviations. neighbours:
        cosine of the answer and those of the nearest prompts.
        """
        import numpy as np

        sparse_asked, sparse_given = self._space.tfidf(prompts), self._space.tfidf(answers)
        asked, given = self._latent.of(sparse_asked), self._latent.of(sparse_given)
        found = np.zeros((prompts.texts, len(MEASURES)), np.float32)
        found[:, 0] = np.asarray(sparse_asked.multiply(sparse_given).sum(axis=1)).ravel()
        found[:, 1] = (asked * given).sum(axis=1)
        for number, learnt in self._folds.items():
            rows = np.flatnonzero(fold == number)
            if len(rows):
                found[rows, 2:] = _judged(learnt, asked[rows], given[rows])
        return found


def fit_ranks(measures: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """For each row the mean of its ranks by each measure, as a share of the rows: low where the answer fits least."""
    import numpy as np
    from scipy.stats import rankdata

    total = np.zeros(len(measures))
    for column in range(measures.shape[1]):
        total += rankdata(measures[:, column])
    ranks: NDArray[np.float64] = total / (measures.shape[1] * max(1, len(measures)))
    return ranks


def _fold(asked: "NDArray[np.float32]", given: "NDArray[np.float32]") -> _Fold:
    import numpy as np

    size = asked.shape[1]
    weights = np.linalg.solve(asked.T @ asked + RIDGE * np.eye(size, dtype=np.float32), asked.T @ given)
    predicted = unit(asked @ weights)
    parts = np.array_split(np.arange(min(REFERENCES, len(asked))), min(NEIGHBOURS, len(asked)))
    return _Fold(
        weights=weights,
        answers_mean=given.mean(axis=0),
        answers_spread=_spread(given),
        predictions_mean=predicted.mean(axis=0),
        predictions_spread=_spread(predicted),
        references=[(asked[part], given[part]) for part in parts],
    )


def _judged(learnt: _Fold, asked: "NDArray[np.float32]", given: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """(rows, 3): prediction, choice, neighbours."""
    import numpy as np

    predicted = unit(asked @ learnt.weights)
    fit = (predicted * given).sum(axis=1)
    prediction = (fit - predicted @ learnt.answers_mean) / _deviation(predicted, learnt.answers_spread)
    choice = (fit - given @ learnt.predictions_mean) / _deviation(given, learnt.predictions_spread)
    alike = np.zeros(len(asked), np.float32)
    weight = np.full(len(asked), 1e-9, np.float32)
    for their_prompts, their_answers in learnt.references:
        nearness = asked @ their_prompts.T
        nearest = nearness.argmax(axis=1)
        near = np.maximum(nearness[np.arange(len(asked)), nearest], 0)
        alike += near * (given * their_answers[nearest]).sum(axis=1)
        weight += near
    return np.stack((prediction, choice, alike / weight), axis=1)


def _spread(vectors: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Covariance of the rows."""
    centred = vectors - vectors.mean(axis=0)
    spread: NDArray[np.float32] = centred.T @ centred / max(1, len(vectors))
    return spread


def _deviation(vectors: "NDArray[np.float32]", spread: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Standard deviation of each vector's products with rows of that covariance."""
    import numpy as np

    deviation: NDArray[np.float32] = np.sqrt(((vectors @ spread) * vectors).sum(axis=1) + 1e-6)
    return deviation


def _joined(first: Words, second: Words) -> Words:
    """The texts of both, one after another."""
    import numpy as np

    return Words(
        np.concatenate((first.ids, second.ids)),
        np.concatenate((first.stems, second.stems)),
        np.concatenate((first.row, second.row + first.texts)),
        first.texts + second.texts,
    )
