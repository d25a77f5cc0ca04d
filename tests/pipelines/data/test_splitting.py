from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.leakage import Placed, find_leaks
from pipelines.data.splitting import HELD_OUT, SIDES, History, Item, Place, assign, draw

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


@st.composite
def growing_data(draw):
    """Items with texts and groups, near-duplicate pairs of texts, and the waves in which each item is there."""
    count = draw(st.integers(1, 14))
    texts = [f"t{draw(st.integers(0, 8))}" for _ in range(count)]
    groups = [draw(st.sampled_from([None, None, "g0", "g1", "g2", "g3"])) for _ in range(count)]
    near = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=6))
    items = [Item(f"i{n:02}", text, group) for n, (text, group) in enumerate(zip(texts, groups, strict=True))]
    waves = draw(st.lists(st.sets(st.sampled_from(items)), min_size=1, max_size=4))
    return items, [(f"t{a}", f"t{b}") for a, b in near if a != b], waves


def on_two_sides(items, near, places):
    """Every pair that belongs together and stands on two sides."""
    near = set(near) | {(b, a) for a, b in near}
    found = []
    for left in items:
        for right in items:
            a, b = places[left.id], places[right.id]
            if left.id < right.id and HELD_OUT not in (a.side, b.side) and a.side != b.side:
                together = (
                    left.text == right.text
                    or (left.text, right.text) in near
                    or (left.group and left.group == right.group)
                    or a.cluster == b.cluster
                )
                if together:
                    found.append((left, right))
    return found


@given(growing_data(), st.integers(0, 2**31 - 1))
@settings(max_examples=400, deadline=None)
def test_nothing_that_belongs_together_stands_on_two_sides_and_nothing_old_moves_while_data_come_and_go(data, seed):
    _, near, waves = data
    present, gone = {}, {}
    for wave in waves:
        places = assign(sorted(wave, key=lambda item: item.id), near, SHARES, seed, History(present, gone))
        assert set(places) == {item.id for item in wave}
        assert on_two_sides(wave, near, places) == []
        for id, place in places.items():
            if id in present:
                assert place == present[id]
            elif id in gone and place.side != HELD_OUT:
                assert place == gone[id]
        gone = {id: place for id, place in (gone | present).items() if id not in places}
        present = places


@given(growing_data(), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_examples_changes_nothing(data, seed, chance):
    items, near, _ = data
    shuffled = list(items)
    chance.shuffle(shuffled)
    assert assign(items, near, SHARES, seed) == assign(shuffled, near[::-1], SHARES, seed)


@given(growing_data(), st.integers(0, 2**31 - 1))
@settings(max_examples=100, deadline=None)
def test_without_a_past_nothing_is_held_out_and_near_texts_share_a_cluster(data, seed):
    items, near, _ = data
    places = assign(items, near, SHARES, seed)
    assert all(place.side in SIDES for place in places.values())
    by_text = {item.text: places[item.id].cluster for item in items}
    for left, right in near:
        if left in by_text and right in by_text:
            assert by_text[left] == by_text[right]


def test_a_newcomer_near_both_sides_is_held_out_and_keeps_nobody_from_a_side():
    history = History({"a": Place("a", "train"), "b": Place("b", "test")})
    old = [Item("a", "ta"), Item("b", "tb")]
    bridge = Item("c", "tc")
    near = [("ta", "tc"), ("tb", "tc")]
    places = assign([*old, bridge], near, SHARES, 1, history)
    assert places == {**history.present, "c": Place("c", HELD_OUT)}
    follower = Item("d", "td")
    later = assign([*old, bridge, follower], [*near, ("tc", "td")], SHARES, 1, History(places))
    assert later["d"].side in SIDES and later["d"].cluster == "d"


def test_a_newcomer_of_a_group_on_one_side_and_near_the_other_is_held_out():
    history = History({"a": Place("a", "train"), "b": Place("b", "test")})
    items = [Item("a", "ta", "g"), Item("b", "tb"), Item("c", "tc", "g"), Item("d", "td", "g")]
    places = assign(items, [("tb", "tc")], SHARES, 1, history)
    assert places["c"].side == HELD_OUT
    assert places["d"].side == "train"


def test_of_a_new_group_that_meets_two_sides_the_smaller_part_is_held_out():
    history = History({"a": Place("a", "train"), "b": Place("b", "test")})
    items = [Item("a", "ta"), Item("b", "tb")] + [Item(f"n{i}", f"n{i}", "new") for i in range(4)]
    near = [("ta", "n0"), ("ta", "n1"), ("tb", "n2")]
    places = assign(items, near, SHARES, 1, history)
    assert [places[f"n{i}"].side for i in range(4)] == ["train", "train", HELD_OUT, "train"]


def test_a_newcomer_joins_the_cluster_that_it_is_near_and_its_name_stays():
    first = assign([Item("m", "tm"), Item("n", "tn")], [("tm", "tn")], SHARES, 3)
    assert {place.cluster for place in first.values()} == {"m"}
    # "a" sorts before "m": computed anew the cluster would be called "a".
    later = assign(
        [Item("a", "ta"), Item("m", "tm"), Item("n", "tn")], [("tm", "tn"), ("ta", "tn")], SHARES, 3, History(first)
    )
    assert later["a"] == first["m"]


def test_the_shares_come_about():
    places = assign([Item(f"{i}", f"t{i}") for i in range(5000)], [], SHARES, 17)
    sizes = Counter(place.side for place in places.values())
    for side, share in SHARES.items():
        assert abs(sizes[side] / 5000 - share) < 0.03


def test_another_seed_draws_other_sides():
    keys = [str(i) for i in range(200)]
    assert [draw(key, SHARES, 1) for key in keys] == [draw(key, SHARES, 1) for key in keys]
    assert [draw(key, SHARES, 1) for key in keys] != [draw(key, SHARES, 2) for key in keys]


vocabulary = st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox"])
texts = st.lists(vocabulary, min_size=1, max_size=16).map(" ".join)
placed = st.builds(
    Placed,
    id=st.integers(0, 10**9).map(str),
    text=texts,
    side=st.sampled_from(SIDES),
    group=st.sampled_from([None, "g", "h"]),
)


@given(st.lists(placed, max_size=20, unique_by=lambda item: item.id), st.sampled_from([0.2, 0.5, 0.7, 1.0]))
@settings(deadline=None)
def test_the_leaks_are_exactly_those_of_brute_force(items, threshold):
    from pipelines.data.duplicates import normalise, similarity

    leaks = find_leaks(items, threshold)
    near = {frozenset((leak.left, leak.right)) for leak in leaks if leak.kind == "near"}
    pairs = [(a, b) for a in items for b in items if a.id < b.id and a.side != b.side]
    expected = {
        frozenset((a.id, b.id))
        for a, b in pairs
        if normalise(a.text) != normalise(b.text) and similarity(normalise(a.text), normalise(b.text)) >= threshold
    }
    assert near == expected
    for kind, same in (
        ("text", lambda a, b: normalise(a.text) == normalise(b.text)),
        ("group", lambda a, b: a.group and a.group == b.group),
    ):
        assert any(leak.kind == kind for leak in leaks) == any(same(a, b) for a, b in pairs)


def test_an_id_and_a_cluster_on_two_sides_are_leaks():
    kinds = {
        leak.kind
        for leak in find_leaks(
            [
                Placed("a", "one text here", "train", cluster="k"),
                Placed("a", "quite another thing", "test"),
                Placed("b", "and a third, unlike them", "validation", cluster="k"),
            ],
            0.7,
        )
    }
    assert kinds == {"id", "cluster"}
