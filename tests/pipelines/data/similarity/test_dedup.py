import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.similarity.dedup import keep_best, keep_first

rows = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 4)), min_size=1, max_size=30)


@given(rows)
def test_of_each_cluster_one_row_stays_the_first_or_the_best(rows):
    names = [name for name, _, _ in rows]
    cluster = np.array([names.index(name) for name in names])
    person = np.array([flag for _, flag, _ in rows])
    words = np.array([count for _, _, count in rows], np.int32)
    first, best = keep_first(cluster), keep_best(cluster, person, words)
    for number in set(cluster.tolist()):
        members = np.flatnonzero(cluster == number).tolist()
        assert [row for row in members if first[row]] == [members[0]]
        wanted = max(members, key=lambda row: (person[row], words[row], -row))
        assert [row for row in members if best[row]] == [wanted]
