import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.anomaly.characters import CharacterModel
from pipelines.data.anomaly.counts import FoldCounts
from pipelines.data.anomaly.word_model import WordModel

seen = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=80)


@given(seen, st.integers(0, 80))
def test_what_a_fold_has_seen_itself_does_not_count(pairs, cut):
    keys = np.array([key for key, _ in pairs], np.uint64)
    fold = np.array([one for _, one in pairs], np.int8)
    counts = FoldCounts(20)
    counts.add(keys[:cut], fold[:cut])
    counts.add(keys[cut:], fold[cut:])
    expected = [sum(key == other and one != theirs for other, theirs in pairs) for key, one in pairs]
    assert counts.elsewhere(keys, fold).tolist() == expected


def test_a_full_table_counts_too_much_and_never_below_nothing():
    chance = np.random.default_rng(1)
    keys, fold = chance.integers(0, 5000, 20_000, np.uint64), chance.integers(0, 5, 20_000).astype(np.int8)
    counts = FoldCounts(8)
    counts.add(keys, fold)
    assert (counts.elsewhere(keys, fold) >= 0).all()


def test_tables_of_a_single_key_keep_folds_apart():
    for table in (CharacterModel()._counts[0], WordModel()._histories[0]):
        fold = np.repeat(np.arange(10, dtype=np.int8), 7)
        table.add(np.zeros(70, np.uint64), fold)
        assert (table.elsewhere(np.zeros(70, np.uint64), fold) == 63).all()


def test_single_characters_of_different_folds_hardly_meet():
    table = CharacterModel()._counts[1]
    keys, fold = np.repeat(np.arange(26, dtype=np.uint64), 5), np.tile(np.arange(5, dtype=np.int8), 26)
    table.add(keys, fold)
    assert np.mean(table.elsewhere(keys, fold) == 4) > 0.97
