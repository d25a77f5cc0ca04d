import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.anomaly.folds import folds_by_cluster


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(2, 20), st.integers(0, 2**32))
def test_a_cluster_is_on_one_fold_whatever_rows_there_are(clusters, k, seed):
    cluster = np.array(clusters, np.int64)
    fold = folds_by_cluster(cluster, k, seed)
    assert fold.dtype == np.int8
    assert ((fold >= 0) & (fold < k)).all()
    alone = {number: folds_by_cluster(np.array([number]), k, seed)[0] for number in set(clusters)}
    assert fold.tolist() == [alone[number] for number in clusters]


@pytest.mark.parametrize("k", [2, 5, 20])
def test_folds_are_of_like_size_and_another_seed_makes_others(k):
    fold = folds_by_cluster(np.arange(20_000), k, 1)
    shares = np.bincount(fold, minlength=k) / 20_000
    assert abs(shares - 1 / k).max() < 0.012
    other = folds_by_cluster(np.arange(20_000), k, 2)
    assert abs((fold == other).mean() - 1 / k) < 0.02
