"""How well an answer fits its own prompt: measures that are each weak alone, weighed against random pairs.

Which weight each measure deserves differs between data, and short or general answers fit anything badly. So a
judge learns it from the data: real pairs are its one class, the same prompts with other rows' answers the other.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.anomaly.vectors import LatentSpace, TextSpace, unit
from pipelines.data.anomaly.word_ids import Words, joined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

RIDGE = 3.0
"""Penalty of the regression from a prompt's vector to its answer's."""
NEIGHBOURS = 8
"""Nearest prompts whose answers an answer is compared with: the nearest of each of so many parts of the references."""
REFERENCES = 10_000
"""Rows of the sample that neighbours are looked for among."""
JUDGED = 10_000
"""Rows of the sample that the judge learns from, at most."""
SHUFFLES = 3
"""Other answers that each of their prompts gets."""
MEASURES = ("cosine", "latent", "prediction", "choice", "neighbours", "prompt words", "answer words", "rarity")


@dataclass(frozen=True)
class _Texts:
    """Texts as the measures need them."""

    sparse: "csr_array"
    """TF-IDF."""
    latent: "NDArray[np.float32]"
    words: "NDArray[np.float32]"
    """Logarithm of their number, and 1."""
    rarity: "NDArray[np.float32]"
    """Mean inverse document frequency of the words."""

    def take(self, rows: "NDArray[np.int64]") -> "_Texts":
        """These texts, in this order."""
        return _Texts(self.sparse[rows], self.latent[rows], self.words[rows], self.rarity[rows])


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

        both = joined([prompts, answers])
        self._space = TextSpace(both)
        self._latent = LatentSpace(self._space, both, seed)
        asked, given = self._texts(prompts), self._texts(answers)
        chance = np.random.default_rng(seed)
        order = chance.permutation(len(fold))
        self._folds = {
            int(one): _fold(asked.latent[others], given.latent[others])
            for one in range(int(fold.max(initial=0)) + 1)
            if len(others := order[fold[order] != one])
        }
        some = order[:JUDGED]
        self._judge = self._learnt(asked.take(some), given.take(some), fold[some], chance)

    def fit(self, prompts: Words, answers: Words, fold: "NDArray[np.int8]") -> "NDArray[np.float32]":
        """For each row the logarithm of the odds that this is a real pair and no random one."""
        import numpy as np

        mean, scale, weights, bias = self._judge
        measures = self.measure(self._texts(prompts), self._texts(answers), fold)
        odds: NDArray[np.float32] = (((measures - mean) / scale) @ weights + bias).astype(np.float32)
        return odds

    def measure(self, asked: _Texts, given: _Texts, fold: "NDArray[np.int8]") -> "NDArray[np.float32]":
        """(rows, MEASURES), of which five say how well an answer fits and three how well it could.

        cosine: of the TF-IDF vectors of prompt and answer; latent: the same in the latent space; prediction: how
        much nearer the answer is to what its prompt predicts than other answers are; choice: how much nearer
        that prediction is to the answer than other prompts' are; both in standard deviations. neighbours:
        cosine of the answer and those of the nearest prompts.
        """
        import numpy as np

        found = np.zeros((len(fold), len(MEASURES)), np.float32)
        found[:, 0] = np.asarray(asked.sparse.multiply(given.sparse).sum(axis=1)).ravel()
        found[:, 1] = (asked.latent * given.latent).sum(axis=1)
        for number, learnt in self._folds.items():
            rows = np.flatnonzero(fold == number)
            if len(rows):
                found[rows, 2:5] = _judged(learnt, asked.latent[rows], given.latent[rows])
        found[:, 5:] = np.stack((asked.words, given.words, given.rarity), axis=1)
        return found

    def _texts(self, words: Words) -> _Texts:
        import numpy as np

        sparse = self._space.tfidf(words)
        return _Texts(
            sparse, self._latent.of(sparse), np.log1p(words.counts).astype(np.float32), self._space.rarity(sparse)
        )

    def _learnt(
        self, asked: _Texts, given: _Texts, fold: "NDArray[np.int8]", chance: "np.random.Generator"
    ) -> "tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]":
        """(mean, scale, weight of each measure, bias) of the judge."""
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        pairs = [self.measure(asked, given, fold)]
        for _ in range(SHUFFLES):
            # Within a fold: what the other folds teach has seen neither answer.
            other = np.argsort(fold, kind="stable")
            mixed = other.copy()
            for one in np.unique(fold):
                here = fold[other] == one
                mixed[here] = chance.permutation(other[here])
            pairs.append(self.measure(asked.take(other), given.take(mixed), fold[other]))
        measures = np.concatenate(pairs)
        mean, scale = measures.mean(axis=0), measures.std(axis=0) + np.float32(1e-6)
        real = np.arange(len(measures)) < len(fold)
        judge = LogisticRegression().fit((measures - mean) / scale, real)
        return mean, scale, judge.coef_[0].astype(np.float32), float(judge.intercept_[0])


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
