"""Texts as vectors: TF-IDF of words and word stems, and a latent semantic space of these."""

from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.word_ids import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

HASHED = 2**18
"""Places that words and stems share."""
TERMS = 50_000
"""Terms that the latent space is made of."""
DIMENSIONS = 100


class TextSpace:
    """TF-IDF weights, fitted on a sample of texts."""

    def __init__(self, sample: Words, terms: int = TERMS) -> None:
        """Weights of all words; `terms`: how many of the most frequent ones stand in `of_terms`."""
        import numpy as np

        frequency = np.bincount(_counts(sample).indices, minlength=HASHED)
        self._idf = np.log((1 + sample.texts) / (1 + frequency)).astype(np.float32)
        often = np.argsort(-frequency, kind="stable")[:terms]
        self._terms = np.sort(often[frequency[often] >= 2])

    def tfidf(self, words: Words) -> "csr_array":
        """A row of length 1 for each text (of zeros for one without known words)."""
        import numpy as np

        vectors = _counts(words)
        vectors.data = (1 + np.log(vectors.data)) * self._idf[vectors.indices]
        length = np.sqrt(np.add.reduceat(np.append(vectors.data, 0) ** 2, vectors.indptr[:-1]))
        length[np.diff(vectors.indptr) == 0] = 1
        vectors.data /= np.repeat(np.maximum(length, 1e-9), np.diff(vectors.indptr))
        return vectors

    def rarity(self, tfidf: "csr_array") -> "NDArray[np.float32]":
        """Mean inverse document frequency of each text's terms; 0 for one without any."""
        import numpy as np

        row = np.repeat(np.arange(tfidf.shape[0]), np.diff(tfidf.indptr))
        total = np.bincount(row, self._idf[tfidf.indices], minlength=tfidf.shape[0])
        mean: NDArray[np.float32] = (total / np.maximum(np.diff(tfidf.indptr), 1)).astype(np.float32)
        return mean

    def of_terms(self, tfidf: "csr_array") -> "csr_array":
        """The columns of terms that stand in two texts of the sample or more, the most frequent ones."""
        return tfidf[:, self._terms]


class LatentSpace:
    """Latent semantic space of a sample of texts (Deerwester et al. 1990)."""

    def __init__(self, space: TextSpace, sample: Words, seed: int) -> None:
        import numpy as np
        from sklearn.utils.extmath import randomized_svd

        self._space = space
        vectors = space.of_terms(space.tfidf(sample))
        size = min(DIMENSIONS, *(max(1, side - 1) for side in vectors.shape))
        self._components = np.zeros((vectors.shape[1], size), np.float32)
        if vectors.shape[1]:
            _, _, right = randomized_svd(vectors, size, n_iter=3, random_state=seed)
            self._components[:, : len(right)] = right.T

    def of(self, tfidf: "csr_array") -> "NDArray[np.float32]":
        """Texts in that space, (texts, dimensions), of length 1."""
        return unit(self._space.of_terms(tfidf) @ self._components)


def unit(vectors: "NDArray[Any]") -> "NDArray[np.float32]":
    """Each row scaled to length 1."""
    import numpy as np

    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(length, 1e-9)).astype(np.float32)
    return scaled


def _counts(words: Words) -> "csr_array":
    """How often each hashed word and stem stands in each text."""
    import numpy as np
    from scipy.sparse import csr_array

    terms = np.concatenate((words.ids, words.stems)) & np.uint64(HASHED - 1)
    row = np.concatenate((words.row, words.row))
    counts = csr_array((np.ones(len(terms), np.float32), (row, terms.astype(np.int64))), shape=(words.texts, HASHED))
    counts.sum_duplicates()
    return counts
