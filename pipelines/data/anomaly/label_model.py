"""Which label a text would have, by a classifier that has learnt from the other folds."""

from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.vectors import TextSpace
from pipelines.data.anomaly.word_ids import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS = 20_000_000
"""Weights that one classifier has at most: of more labels, fewer terms are looked at."""
TERMS = 50_000
"""Terms that it looks at, at most."""


class LabelModel:
    """Logistic regression over TF-IDF, one for each fold."""

    def __init__(self, texts: Words, labels: "NDArray[np.int64]", fold: "NDArray[np.int8]", classes: int) -> None:
        """Learn from texts with labels 0 to `classes` - 1."""
        import numpy as np

        self._space = TextSpace(texts, min(TERMS, WEIGHTS // classes))
        self._classes = classes
        vectors = self._space.of_terms(self._space.tfidf(texts))
        self.terms: int = vectors.shape[1]
        """Words that it looks at: those that stand in two texts or more. Without any it has learnt nothing."""
        every = np.unique(fold) if self.terms else ()
        self._models = {int(one): _fitted(vectors[fold != one], labels[fold != one]) for one in every}

    def probabilities(self, texts: Words, fold: "NDArray[np.int8]") -> "NDArray[np.float32]":
        """(texts, classes), under what was learnt in other folds; a label that these lack has probability 0."""
        import numpy as np

        found = np.zeros((texts.texts, self._classes), np.float32)
        vectors = self._space.of_terms(self._space.tfidf(texts))
        for one, (model, known) in self._models.items():
            rows = np.flatnonzero(fold == one)
            if len(rows):
                found[np.ix_(rows, known)] = 1.0 if model is None else model.predict_proba(vectors[rows])
        return found


def _fitted(vectors: Any, labels: "NDArray[np.int64]") -> "tuple[Any, NDArray[np.int64]]":
    """The classifier (None where there is only one label to learn) and the labels that its columns mean."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    known = np.unique(labels)
    if len(known) < 2:
        return None, known
    model = LogisticRegression(C=30.0, tol=1e-3, max_iter=200)
    model.fit(vectors, labels)
    return model, np.asarray(model.classes_, np.int64)
