"""Texts as vectors: TF-IDF of words and word stems, and their latent semantic space."""

from typing import TYPE_CHECKING, Any

from pipelines.data.word_ids import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

HASHED = 2**18
"""Places that words and stems share."""
TERMS = 50_000
"""Terms that the latent space is made of, the most frequent of those in two texts or more."""
DIMENSIONS = 100


class TextSpace:
    """TF-IDF weights and a latent semantic space (Deerwester et al. 1990), fitted on a sample of texts."""

    def __init__(self, sample: Words, seed: int) -> None:
        import numpy as np
        from sklearn.utils.extmath import randomized_svd

        counts = _counts(sample)
        frequency = np.bincount(counts.indices, minlength=HASHED)
        self._idf = np.log((1 + sample.texts) / (1 + frequency)).astype(np.float32)
        often = np.argsort(-frequency, kind="stable")[:TERMS]
        self._terms = np.sort(often[frequency[often] >= 2])
        vectors = self.tfidf(sample)[:, self._terms]
        size = min(DIMENSIONS, *(max(1, side - 1) for side in vectors.shape))
        if vectors.shape[1]:
            _, _, right = randomized_svd(vectors, size, n_iter=3, random_state=seed)
            self._components = np.ascontiguousarray(right.T, np.float32)
        else:
            self._components = np.zeros((0, size), np.float32)

    def tfidf(self, words: Words) -> "csr_array":
        """A row of length 1 for each text (of zeros for one without known words)."""
        import numpy as np

        vectors = _counts(words)
        vectors.data = (1 + np.log(vectors.data)) * self._idf[vectors.indices]
        length = np.sqrt(np.add.reduceat(np.append(vectors.data, 0) ** 2, vectors.indptr[:-1]))
        length[np.diff(vectors.indptr) == 0] = 1
        vectors.data /= np.repeat(np.maximum(length, 1e-9), np.diff(vectors.indptr))
        return vectors

    def latent(self, tfidf: "csr_array") -> "NDArray[np.float32]":
        """The same texts in the latent space, (texts, dimensions), of length 1."""
        return unit(tfidf[:, self._terms] @ self._components)


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
