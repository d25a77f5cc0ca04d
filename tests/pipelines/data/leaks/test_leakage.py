import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.leaks import close_texts
from pipelines.data.leaks.close_texts import Meanings
from pipelines.data.leaks.leakage import find_leaks, heal
from pipelines.data.leaks.placed import SIDE_NAMES, read_placed
from pipelines.data.leaks.row_pairs import Pairs
from pipelines.data.similarity.duplicates import normalise, similarity

SIDES = SIDE_NAMES[:3]


def conversation(text, answer=""):
    return json.dumps([{"role": "user", "content": text}, {"role": "assistant", "content": answer}])


def batch(rows):
    """Rows of (id, text, side) and, where they have them, group and cluster, as the split's table holds them."""
    columns = list(zip(*[(*row, None, None)[:5] for row in rows], strict=True)) or [()] * 5
    id, text, side, group, cluster = (list(column) for column in columns)
    return pa.record_batch(
        {
            "id": pa.array(id, pa.string()),
            "messages": pa.array([conversation(each) for each in text], pa.string()),
            "split": pa.array(side, pa.string()),
            "group": pa.array(group, pa.string()),
            "cluster": pa.array(cluster, pa.string()),
        }
    )


def placed(rows, **more):
    return read_placed([batch(rows)], **more)


def pairs(leaks, rows, kind):
    """The ids of each pair of a kind, as sets."""
    table = leaks.table(rows).to_pylist()
    return {frozenset((row["left"], row["right"])) for row in table if row["kind"] == kind}


vocabulary = st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox"])
texts = st.one_of(
    st.lists(vocabulary, min_size=1, max_size=16).map(" ".join),
    st.text(alphabet="abc äß漢字!.", min_size=1, max_size=30),
)
rows_of = st.lists(
    st.tuples(
        st.integers(0, 10**9).map(str),
        texts,
        st.sampled_from([*SIDES, "held_out"]),
        st.sampled_from([None, "", "g", "h"]),
    ),
    max_size=20,
    unique_by=lambda row: row[0],
)


@given(rows_of, st.sampled_from([0.2, 0.5, 0.7, 1.0]))
@settings(deadline=None, max_examples=50)
def test_the_leaks_are_exactly_those_of_brute_force(rows, threshold):
    found = placed(rows)
    leaks = find_leaks(found, threshold)
    stood = [(id, normalise(text + "\n"), side, group) for id, text, side, group in rows if side in SIDES]
    across = [(a, b) for a in stood for b in stood if SIDES.index(a[2]) < SIDES.index(b[2])]
    expected = {((a[1], a[2]), (b[1], b[2])) for a, b in across if a[1] != b[1] and similarity(a[1], b[1]) >= threshold}
    by_id = {row[0]: (row[1], row[2]) for row in stood}
    near = [
        tuple(by_id[id] for id in (row["left"], row["right"]))
        for row in leaks.table(found).to_pylist()
        if row["kind"] == "near"
    ]
    assert sorted(near) == sorted(expected)
    assert ("text" in leaks.counts) == any(a[1] == b[1] for a, b in across)
    assert ("group" in leaks.counts) == any(a[3] and a[3] == b[3] for a, b in across)


@given(rows_of, st.sampled_from([0.2, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_what_heals_leaves_no_leak_and_the_test_side_as_it_is(rows, threshold):
    found = placed(rows, benchmarks=[("set:1", "ant bee cat dog eel fox ant ant bee"), ("set:2", "漢字")])
    leaks = find_leaks(found, threshold, 0.5)
    out = heal(found, leaks)
    assert not out[np.array([side in ("test", "held_out") for _, _, side, _ in rows], bool)].any()
    healed = found.on(np.where(out, -1, found.side[: len(rows)]))
    assert find_leaks(healed, threshold, 0.5).counts == {}
    if not leaks.counts:
        assert not out.any()


def test_an_id_and_a_cluster_on_two_sides_are_leaks():
    rows = placed(
        [
            ("a", "one text here", "train", None, "k"),
            ("a", "quite another thing", "test"),
            ("b", "and a third, unlike them", "validation", None, "k"),
        ]
    )
    assert find_leaks(rows, 0.7).counts == {"id": 1, "cluster": 1}


def test_a_pair_exactly_at_the_threshold_is_a_leak_and_one_just_below_is_none():
    # 17 shingles of five in 21 words; one other last word leaves 16 of 18.
    words = [f"w{n}" for n in range(21)]
    rows = placed([("a", " ".join(words), "train"), ("b", " ".join([*words[:-1], "x"]), "test")])
    assert pairs(find_leaks(rows, 16 / 18), rows, "near") == {frozenset("ab")}
    assert find_leaks(rows, 16 / 18 + 1e-6).counts == {}


def test_a_short_text_is_compared_with_a_long_one_by_characters():
    rows = placed([("a", "a b c d e f g h i j", "train"), ("b", "a b c d e f g h i", "test")])
    assert find_leaks(rows, 0.85).counts == {"near": 1}


@pytest.mark.parametrize("seed", range(3))
def test_of_many_texts_in_many_batches_the_pairs_are_those_of_brute_force(seed):
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice([f"w{n}" for n in range(300)], draw.integers(5, 40))) for _ in range(150)]
    for number in range(150):
        words = texts[number].split()
        words[draw.integers(len(words))] = "changed"
        texts.append(" ".join(words))
    rows = [(str(n), text, SIDES[draw.integers(3)]) for n, text in enumerate(texts)]
    found = read_placed([batch(rows[start : start + 7]) for start in range(0, len(rows), 7)])
    expected = {
        frozenset((a[0], b[0]))
        for a in rows
        for b in rows
        if a[0] < b[0] and a[2] != b[2] and a[1] != b[1] and similarity(normalise(a[1]), normalise(b[1])) >= 0.7
    }
    assert len(expected) > 20
    assert pairs(find_leaks(found, 0.7), found, "near") == expected


def test_a_group_on_three_sides_is_held_out_of_all_but_the_last():
    rows = placed([(str(n), f"text number {n} {n}", side, "g") for n, side in enumerate([*SIDES, "train", "held_out"])])
    leaks = find_leaks(rows, 0.9)
    assert leaks.counts == {"group": 2}
    assert heal(rows, leaks).tolist() == [True, True, False, True, False]


def test_a_benchmark_item_is_looked_for_in_training_alone():
    question = "how many sides has a polygon with seventeen corners and one hole in its middle as drawn on page nine"
    rows = placed(
        [
            ("exact", "What is 17 times 3?", "train"),
            ("near", f"{question} today", "train"),
            ("inside", f"{'some other words before it and then ' * 3}{question} and others behind it", "train"),
            ("elsewhere", "What is 17 times 3?!", "test"),
            ("other", "an example that has nothing to do with it", "train"),
        ],
        benchmarks=[("quiz:1", "what is 17 times 3"), ("quiz:2", question)],
    )
    leaks = find_leaks(rows.on(np.array([0, 0, 0, 2, 0])), 0.7, 0.8)
    found = pairs(leaks, rows, "benchmark")
    assert found == {frozenset(("exact", "quiz:1")), frozenset(("near", "quiz:2")), frozenset(("inside", "quiz:2"))}
    assert leaks.counts["text"] == 1
    assert heal(rows, leaks).tolist() == [True, True, True, False, False]


ANSWER = "seventeen times three are fifty one as whoever adds seventeen up three times will find out soon"


def asked(*rows):
    """Rows of (id, messages, side)."""
    id, messages, side = (list(column) for column in zip(*rows, strict=True))
    return pa.record_batch({"id": id, "messages": messages, "split": side})


def test_a_short_question_of_a_benchmark_is_found_before_an_answer_twice_as_long():
    question = "what do we get of seventeen times three"
    rows = read_placed(
        [
            asked(
                ("exact", conversation(question.upper() + "?", ANSWER), "train"),
                ("again", conversation(question, f"it is {ANSWER}"), "train"),
                ("near", conversation(question + " s", ANSWER), "train"),
                ("tested", conversation(question, f"so {ANSWER}"), "test"),
                ("other", conversation("what do we get for dinner", ANSWER), "train"),
            )
        ],
        benchmarks=[("quiz:1", question)],
    )
    leaks = find_leaks(rows, 0.7, 0.8)
    assert pairs(leaks, rows, "benchmark") == {frozenset((id, "quiz:1")) for id in ("exact", "again", "near")}
    assert heal(rows, leaks).tolist()[:3] == [True, True, True]


def test_a_question_in_the_midst_of_a_conversation_was_learnt_too():
    turns = [("user", "hello"), ("assistant", "hello"), ("user", "What is 17 times 3?"), ("assistant", ANSWER)]
    messages = json.dumps([{"role": role, "content": text} for role, text in turns])
    rows = read_placed([asked(("a", messages, "train"))], benchmarks=[("quiz:1", "what is 17 times 3")])
    assert find_leaks(rows, 0.7).counts == {"benchmark": 1}


def test_a_prompt_on_two_sides_is_a_leak_whatever_the_answers_unless_it_is_an_instruction():
    def rows(count):
        told = [
            (
                "s",
                json.dumps([{"role": "system", "content": "of cats"}, *json.loads(conversation("Tell!", "a"))]),
                "test",
            )
        ]
        same = [(str(n), conversation("Tell!", f"{n} {ANSWER} " * n), SIDES[n % 2]) for n in range(count)]
        return read_placed([asked(*told, *same)], shared_prompts=4)

    leaks = find_leaks(rows(4), 1.0)
    assert leaks.counts == {"prompt": 1}
    assert heal(rows(4), leaks).tolist() == [False, True, False, True, False]
    assert find_leaks(rows(5), 1.0).counts == {}


def meanings(units, place, items=(), threshold=0.9):
    two = [np.array(each, np.float32).reshape(-1, 2) for each in (units, items)]
    return Meanings(two[0], np.array(place), two[1], threshold)


def test_vectors_that_point_the_same_way_on_two_sides_are_leaks():
    rows = placed(
        [("a", "big dog", "train"), ("b", "large hound", "test"), ("c", "red tea", "test"), ("d", "big dog", "train")]
    )
    leaks = find_leaks(rows, 1.0, meanings=meanings([[1, 0], [0.96, 0.28], [0, 1]], [0, 1, 2, 0]))
    assert pairs(leaks, rows, "semantic") == {frozenset("ab")}
    assert heal(rows, leaks).tolist() == [True, False, False, True]


def test_an_item_that_means_the_same_as_a_row_for_training_is_found():
    rows = placed(
        [("a", "big dog", "train"), ("b", "large hound", "test"), ("c", "red tea", "train")],
        benchmarks=[("quiz:1", "huge canine"), ("quiz:2", "enormous cur")],
    )
    known = meanings([[1, 0], [1, 0], [0, 1]], [0, 1, 2], [[0.96, 0.28], [0.6, 0.8]])
    leaks = find_leaks(rows, 1.0, meanings=known)
    assert pairs(leaks, rows, "benchmark") == {frozenset(("a", "quiz:1"))}
    assert pairs(leaks, rows, "semantic") == {frozenset("ab")}


@pytest.mark.parametrize("at_once", [3, 50])
def test_however_the_vectors_are_cut_the_pairs_are_those_of_all_cosines(monkeypatch, at_once):
    monkeypatch.setattr(close_texts, "_VECTORS", at_once)
    angles = np.random.default_rng(6).uniform(0, 3, 40)
    units = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    sides = [SIDES[n % 7 % 3] for n in range(40)]
    rows = placed([(str(n), f"text {n}", side) for n, side in enumerate(sides)])
    leaks = find_leaks(rows, 1.0, meanings=meanings(units, np.arange(40), threshold=0.99))
    cosine = units @ units.T
    expected = {
        frozenset((str(i), str(j)))
        for i in range(40)
        for j in range(i)
        if sides[i] != sides[j] and cosine[i, j] >= 0.99
    }
    assert pairs(leaks, rows, "semantic") == expected and len(expected) > 5


def test_the_table_lists_some_of_each_kind_and_the_counts_tell_of_all():
    rows = [(f"{side}{n}", f"text {n}", side) for n in range(30) for side in ("train", "test")]
    rows += [("x", "alpha", "train", "g"), ("y", "omega", "test", "g")]
    found = placed(rows)
    leaks = find_leaks(found, 1.0)
    assert leaks.counts == {"text": 30, "group": 1}
    kinds = leaks.table(found, most=10)["kind"].to_pylist()
    assert (kinds.count("text"), kinds.count("group")) == (5, 1)


def test_nothing_leaks_where_nothing_is():
    assert find_leaks(placed([]), 0.7, 0.8).counts == {}
    assert isinstance(find_leaks(placed([("a", "b", "held_out")]), 0.7, 0.8).of("near")[0], np.ndarray)
    assert len(Pairs(np.zeros(0), np.zeros(0), np.zeros(0))) == 0
