"""Rows in columns on disk: written whole or not at all, read by the batch, the column and the row."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.data import corpus as module
from pipelines.data.corpus import Corpus, CorpusWriter, Note

NOTE = Note("d" * 64, "one process", 0)
BAD = pa.table({"file": pa.array(["a"]), "position": pa.array([1]), "kind": pa.array(["type"])})


def table(start, stop):
    numbers = range(start, stop)
    return pa.table(
        {"n": pa.array(numbers, pa.int64()), "text": [None if n % 7 == 0 else f"t{n % 5}" for n in numbers]}
    )


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Of 100 rows in groups of 8, written in pieces of another size."""
    monkeypatch.setattr(module, "ROW_GROUP", 8)
    with CorpusWriter(tmp_path / "c") as writer:
        for start in range(0, 100, 10):
            writer.write(table(start, start + 10))
            writer.write_bad(BAD.slice(0, start // 90))
        return writer.finish(NOTE)


def test_what_was_written_is_read_in_its_order(corpus):
    assert len(corpus) == 100 and corpus.columns == ("n", "text")
    assert corpus.array("n").tolist() == list(range(100))
    batches = list(corpus.batches(["n"], size=8))
    assert max(len(batch) for batch in batches) <= 8
    assert [n for batch in batches for n in batch["n"].to_pylist()] == list(range(100))
    assert corpus.bad.to_pylist() == BAD.to_pylist()
    assert corpus.note == NOTE


def test_rows_are_taken_in_the_order_asked_for_repeats_included(corpus):
    assert corpus.take([99, 0, 8, 99, 7], ["n"])["n"].to_pylist() == [99, 0, 8, 99, 7]
    assert corpus.take([], ["text"]).num_rows == 0


def test_values_have_numbers_by_first_sight_and_none_has_minus_one(corpus):
    codes, names = corpus.codes("text")
    assert names == ["t1", "t2", "t3", "t4", "t0"]
    assert [None if code < 0 else names[code] for code in codes] == corpus.column("text").to_pylist()
    assert (corpus.numbers("text") == codes).all()


def test_a_choice_of_rows_keeps_their_order(tmp_path):
    keep = np.arange(20) % 3 == 0
    with CorpusWriter(tmp_path / "c") as writer:
        writer.write(table(0, 20))
        writer.write_bad(BAD)
        kept = writer.finish(NOTE, keep)
    assert kept.array("n").tolist() == list(range(0, 20, 3))
    assert sorted(path.name for path in kept.folder.iterdir()) == ["bad.parquet", "corpus.json", "rows.parquet"]


def test_writing_that_fails_leaves_nothing_and_what_was_there_stays(tmp_path):
    with CorpusWriter(tmp_path / "c") as writer:
        writer.write(table(0, 5))
        writer.write_bad(BAD)
        writer.finish(NOTE)
    with pytest.raises(RuntimeError), CorpusWriter(tmp_path / "c") as writer:
        writer.write(table(0, 9))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert len(Corpus(tmp_path / "c")) == 5
