import json

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import UserError
from pipelines.data.evidence import TABLES, EvidenceNote, vectors_table, write_evidence
from pipelines.data.similarity.clusters import find_clusters
from pipelines.data.similarity.duplicates import normalise
from pipelines.data.similarity.semantic import MOST_TOKENS, embed, embed_texts, similar_pairs
from pipelines.progress import Progress
from pipelines.recipe import BaseModelChoice
from pipelines.recipe_data import Semantic
from tests.pipelines.data.similarity.test_clusters import written

QUIET = Progress(quiet=True)

TEXTS = [
    "The printer on the second floor does not answer.",
    "Bread needs flour, water, salt and some hours of patience.",
    "THE printer, on the second floor: does not answer!",
    "The printer on the second floor does not answer now.",
    "A train leaves at nine from the other platform.",
    "word " * 700,
]


@pytest.fixture
def corpus(tmp_path):
    messages = [json.dumps([{"role": "assistant", "content": text}]) for text in TEXTS]
    return written(tmp_path / "corpus", messages, [normalise(text) for text in TEXTS], 0.99)


def test_of_an_encoder_decoder_the_encoder_gives_the_vectors(corpus, tiny_t5, tmp_path):
    vectors = embed(corpus, np.arange(len(TEXTS)), tiny_t5, "", QUIET, tmp_path / "a.npy").units
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[3] > vectors[0] @ vectors[1]


def test_a_text_has_a_unit_vector_whatever_stands_beside_it(corpus, tiny_model, tmp_path, monkeypatch):
    rows = np.arange(len(TEXTS))
    together = np.array(embed(corpus, rows, tiny_model, "", QUIET, tmp_path / "a.npy").units)
    monkeypatch.setattr("pipelines.data.similarity.semantic.TOKENS_AT_ONCE", MOST_TOKENS)
    one_by_one = np.array(embed(corpus, rows, tiny_model, "", QUIET, tmp_path / "b.npy").units)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together, one_by_one, atol=1e-2)
    assert together[0] @ together[3] > 0.5 > together[0] @ together[1]


def test_a_text_from_elsewhere_has_the_vector_that_it_would_have_among_the_rows(corpus, tiny_model, tmp_path):
    known = embed(corpus, np.arange(len(TEXTS)), tiny_model, "", QUIET, tmp_path / "a.npy")
    others = embed_texts([TEXTS[3], TEXTS[1]], tiny_model, known.mean, QUIET)
    assert np.allclose(others, known.units[[3, 1]], atol=1e-2)
    assert embed_texts([], tiny_model, known.mean, QUIET).shape == (0, len(known.mean))


def test_pairs_are_those_of_all_cosines_however_the_vectors_are_cut(monkeypatch):
    vectors = np.random.default_rng(4).normal(size=(90, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    expected = {(i, j) for i, j in zip(*np.nonzero(cosine >= 0.8), strict=True) if i < j}
    assert len(expected) > 20
    for block in (7, 90, 1000):
        monkeypatch.setattr("pipelines.data.similarity.semantic.BLOCK", block)
        found = similar_pairs(vectors, 0.8, QUIET)
        assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected
        assert found.similarity.tolist() == pytest.approx(cosine[found.left, found.right].tolist(), abs=1e-6)


def test_of_too_many_pairs_those_stay_that_connect_the_same(monkeypatch):
    from pipelines.data.similarity.edges import components

    angles = np.repeat([0.0, 1.5], 30) + np.random.default_rng(5).normal(scale=0.05, size=60)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    every = similar_pairs(vectors, 0.99, QUIET)
    monkeypatch.setattr("pipelines.data.similarity.semantic.MOST_EDGES", 100)
    monkeypatch.setattr("pipelines.data.similarity.semantic.BLOCK", 16)
    fewer = similar_pairs(vectors, 0.99, QUIET)
    assert len(fewer.left) <= 160 < len(every.left)
    assert set(zip(fewer.left, fewer.right, strict=True)) <= set(zip(every.left, every.right, strict=True))
    assert components(60, fewer.left, fewer.right).tolist() == components(60, every.left, every.right).tolist()


def test_texts_of_one_meaning_share_a_cluster_by_an_edge_of_its_kind(corpus, tiny_model, tmp_path):
    base = BaseModelChoice(base=str(tiny_model))
    found = find_clusters(corpus, 0.99, "", QUIET, semantic=Semantic(threshold=0.5), base=base)
    edges = list(zip(found.left.tolist(), found.right.tolist(), found.kind.tolist(), strict=True))
    assert (0, 3, "semantic") in edges
    assert found.text.tolist() == [0, 1, 0, 3, 4, 5]
    assert found.cluster[[0, 2, 3]].tolist() == [0, 0, 0]
    # A vector for each row that stands for its text, kept with the evidence as it is.
    assert len(found.vectors.units) == 5
    tables = {name: pa.table({"row": [0]}) for name in TABLES} | {"vectors": vectors_table(found.vectors)}
    kept = write_evidence(tmp_path / "evidence", tables, EvidenceNote("corpus")).vectors
    assert np.array_equal(kept.units, found.vectors.units) and np.array_equal(kept.mean, found.vectors.mean)
    named = find_clusters(corpus, 0.99, "", QUIET, semantic=Semantic(model=str(tiny_model), threshold=0.5))
    assert named.cluster.tolist() == found.cluster.tolist()


def test_a_model_that_is_nowhere_is_refused_by_its_name(corpus):
    with pytest.raises(UserError, match="no/where/at/all"):
        find_clusters(corpus, 0.99, "", QUIET, semantic=Semantic(model="no/where/at/all"))
