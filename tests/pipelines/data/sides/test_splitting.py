from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.sides.drawing import ByTime, by_hash, by_label, folds, point
from pipelines.data.sides.splitting import (
    HELD,
    NEWCOMER,
    PLACES,
    SIDES,
    TEST,
    TRAIN,
    VALIDATION,
    History,
    Items,
    assign,
    components,
    newcomers,
)

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Row:
    id: str
    text: int
    group: str | None = None
    prompt: int = -1


def items_of(rows):
    groups = sorted({row.group for row in rows if row.group}, reverse=True)
    return Items(
        np.array([row.id.encode() for row in rows], "S8"),
        np.array([row.text for row in rows], np.int64),
        np.array([groups.index(row.group) if row.group else -1 for row in rows], np.int64),
        groups,
        np.array([row.prompt for row in rows], np.int64),
    )


def place(rows, near, seed, present=None, gone=None, choose=None):
    """Id -> (side, cluster); `present` and `gone` hold earlier answers of this function."""
    present, gone = present or {}, gone or {}
    known = [present.get(row.id) or gone.get(row.id) for row in rows]
    history = History(
        np.array([PLACES.index(found[0]) if found else NEWCOMER for found in known], np.int8),
        np.array([found[1].encode() if found else b"" for found in known], "S8"),
        np.array([row.id in gone and row.id not in present for row in rows], bool),
    )
    places = assign(items_of(rows), np.array(near, np.int64), choose or by_hash(SHARES, seed, len(rows)), history)
    sides = [PLACES[code] for code in places.side]
    return {row.id: (side, name.decode()) for row, side, name in zip(rows, sides, places.cluster.tolist(), strict=True)}


@st.composite
def growing_data(draw):
    """Rows with texts and groups, near-duplicate pairs of texts, and the waves in which each row is there."""
    count = draw(st.integers(1, 14))
    texts = [draw(st.integers(0, 8)) for _ in range(count)]
    groups = [draw(st.sampled_from([None, None, "g0", "g1", "g2", "g3"])) for _ in range(count)]
    prompts = [draw(st.sampled_from([-1, -1, -1, 0, 1])) for _ in range(count)]
    near = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=6))
    rows = [Row(f"i{n:02}", *keys) for n, keys in enumerate(zip(texts, groups, prompts, strict=True))]
    waves = draw(st.lists(st.sets(st.sampled_from(rows), min_size=1), min_size=1, max_size=4))
    return rows, [(a, b) for a, b in near if a != b], waves


@st.composite
def shares(draw):
    parts = [draw(st.integers(1, 10)) for _ in SIDES]
    return {side: part / sum(parts) for side, part in zip(SIDES, parts, strict=True)}


def on_two_sides(rows, near, places):
    """Every pair that belongs together and stands on two sides."""
    near = set(near) | {(b, a) for a, b in near}
    found = []
    for left in rows:
        for right in rows:
            a, b = places[left.id], places[right.id]
            if left.id < right.id and "held_out" not in (a[0], b[0]) and a[0] != b[0]:
                together = (
                    left.text == right.text
                    or (left.text, right.text) in near
                    or (left.group and left.group == right.group)
                    or (left.prompt >= 0 and left.prompt == right.prompt)
                    or a[1] == b[1]
                )
                if together:
                    found.append((left, right))
    return found


def bound_to(row, rows, near, places):
    """The sides of all that a newcomer belongs to directly."""
    near = set(near) | {(b, a) for a, b in near}
    return {
        places[other.id][0]
        for other in rows
        if other.id in places
        and other.id != row.id
        and (
            other.text == row.text
            or (other.text, row.text) in near
            or (row.group and other.group == row.group)
            or (row.prompt >= 0 and other.prompt == row.prompt)
        )
    } - {"held_out"}


def reached(start, rows, near):
    """All rows that a row belongs to, directly or through others."""
    found, waiting = {start}, [start]
    while waiting:
        row = waiting.pop()
        for other in rows:
            if other not in found and bound_to(row, [other], near, {other.id: ("there", "")}):
                found.add(other)
                waiting.append(other)
    return found


def held_for_nothing(rows, near, places, before):
    """Newcomers that are held out although nothing binds their component to two sides."""
    old = {id: found for id, found in before.items() if id in {row.id for row in rows}}
    new = [row for row in rows if row.id not in old]
    return [
        row
        for row in new
        if places[row.id][0] == "held_out"
        and len(set().union(*(bound_to(each, rows, near, old) for each in reached(row, new, near)))) < 2
    ]


@pytest.mark.slow
@given(growing_data(), shares(), st.integers(0, 2**31 - 1), st.sampled_from(["hash", "label", "time"]))
@settings(max_examples=300, deadline=None)
def test_nothing_that_belongs_together_stands_on_two_sides_and_nothing_old_moves_while_data_come_and_go(
    data, wanted, seed, by
):
    _, near, waves = data
    present, gone, cutoffs = {}, {}, None
    for wave in waves:
        rows = sorted(wave, key=lambda row: row.id)
        choose = by_hash(wanted, seed, len(rows))
        if by == "label":
            choose = by_label(np.array([row.text % 3 for row in rows]), np.zeros((3, 3), np.int64), wanted, seed)
        if by == "time":
            choose = ByTime(np.array([int(row.id[1:]) for row in rows]), wanted, cutoffs)
        places = place(rows, near, seed, present, gone, choose)
        cutoffs = choose.cutoffs if by == "time" else None
        assert set(places) == {row.id for row in wave}
        assert on_two_sides(wave, near, places) == []
        # What was there once is bound to its old side as well: the waves of all new rows show the rule by itself.
        if not gone.keys() & places.keys():
            assert held_for_nothing(rows, near, places, present) == []
        for id, given_place in places.items():
            if id in present:
                assert given_place == present[id]
            elif id in gone and given_place[0] != "held_out":
                assert given_place == gone[id]
        gone = {id: found for id, found in (gone | present).items() if id not in places}
        present = places


@given(growing_data(), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_the_order_of_the_examples_changes_nothing(data, seed, chance):
    rows, near, _ = data
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert place(rows, near, seed) == place(shuffled, near[::-1], seed)


@given(growing_data(), growing_data(), st.integers(0, 2**31 - 1))
@settings(max_examples=100, deadline=None)
def test_who_else_is_there_changes_a_drawn_side_only_of_what_was_larger_than_it(data, more, seed):
    rows, near, _ = data
    strangers = [
        Row(f"j{n}", row.text + 100, row.group and f"other {row.group}", row.prompt + 10 if row.prompt >= 0 else -1)
        for n, row in enumerate(more[0])
    ]
    alone, together = place(rows, near, seed), place(strangers + rows, near, seed)
    for row in rows:
        fits = len(reached(row, rows, near)) <= SHARES["test"] * len(rows)
        assert together[row.id] == alone[row.id] or (not fits and alone[row.id] == ("train", together[row.id][1]))


@given(growing_data(), st.integers(0, 2**31 - 1))
@settings(max_examples=80, deadline=None)
def test_without_a_past_nothing_is_held_out_and_near_texts_share_a_cluster(data, seed):
    rows, near, _ = data
    places = place(rows, near, seed)
    assert all(side in SIDES for side, _ in places.values())
    by_text = {row.text: places[row.id][1] for row in rows}
    for left, right in near:
        if left in by_text and right in by_text:
            assert by_text[left] == by_text[right]


def test_a_newcomer_near_both_sides_is_held_out_and_keeps_nobody_from_a_side():
    before = {"a": ("train", "a"), "b": ("test", "b")}
    old, bridge = [Row("a", 0), Row("b", 1)], Row("c", 2)
    near = [(0, 2), (1, 2)]
    places = place([*old, bridge], near, 1, before)
    assert places == {**before, "c": ("held_out", "c")}
    later = place([*old, bridge, Row("d", 3)], [*near, (2, 3)], 1, places)
    assert later["d"][0] in SIDES and later["d"][1] == "d"


def test_a_newcomer_of_a_group_on_one_side_and_near_the_other_is_held_out():
    rows = [Row("a", 0, "g"), Row("b", 1), Row("c", 2, "g"), Row("d", 3, "g")]
    places = place(rows, [(1, 2)], 1, {"a": ("train", "a"), "b": ("test", "b")})
    assert (places["c"][0], places["d"][0]) == ("held_out", "train")


def test_of_a_new_group_that_meets_two_sides_the_smaller_part_is_held_out():
    rows = [Row("a", 10), Row("b", 11)] + [Row(f"n{i}", i, "new") for i in range(4)]
    near = [(10, 0), (10, 1), (11, 2)]
    places = place(rows, near, 1, {"a": ("train", "a"), "b": ("test", "b")})
    assert [places[f"n{i}"][0] for i in range(4)] == ["train", "train", "held_out", "train"]


def test_a_newcomer_joins_the_cluster_that_it_is_near_and_its_name_stays():
    first = place([Row("m", 1), Row("n", 2)], [(1, 2)], 3)
    assert {cluster for _, cluster in first.values()} == {"m"}
    # "a" sorts before "m": computed anew the cluster would be called "a".
    later = place([Row("a", 0), Row("m", 1), Row("n", 2)], [(1, 2), (0, 2)], 3, first)
    assert later["a"] == first["m"]


def test_what_is_bound_to_a_side_from_outside_goes_there_with_its_own():
    rows = [Row("a", 0, "g"), Row("b", 1, "g"), Row("c", 2), *(Row(f"x{n}", 10 + n) for n in range(5))]
    items = items_of(rows)
    pull = np.zeros(len(rows), np.uint8)
    pull[0] = 1 << TEST
    places = assign(replace(items, pull=pull), np.array([[1, 2]]), by_hash(SHARES | {"train": 1}, 1, len(rows)))
    assert set(places.side[:3]) == {TEST} and set(places.side[3:]) == {TRAIN}


def test_the_sides_are_those_that_earlier_versions_drew():
    """Existing tables grow on: these were computed by the version before arrays."""
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    rows = [Row(f"r{n}", n, f"g{n % 7}" if n % 2 else None) for n in range(24)]
    places = place(rows, [(0, 2), (4, 5)], 17, choose=by_hash(shares, 17, len(rows)))
    drawn = "".join(places[row.id][0][1] for row in rows)
    assert drawn == "ararrrrrarrerrrrrrrrarrr"


def test_the_shares_come_about():
    items = items_of([Row(f"{i}", i) for i in range(5000)])
    side = assign(items, np.zeros((0, 2), np.int64), by_hash(SHARES, 17, len(items))).side
    for code, share in enumerate(SHARES.values()):
        assert abs(np.mean(side == code) - share) < 0.03


@pytest.mark.parametrize("seed", range(8))
def test_a_cluster_larger_than_a_whole_side_goes_to_training(seed):
    rows = [Row(f"{i}", i, "giant" if i < 300 else None) for i in range(1000)]
    side = assign(items_of(rows), np.zeros((0, 2), np.int64), by_hash(SHARES, seed, len(rows))).side
    assert set(side[:300]) == {TRAIN}
    assert 0 < np.mean(side[300:] != TRAIN) < 0.5


def test_another_seed_draws_other_sides():
    keys = [str(i) for i in range(200)]
    assert [point(key, 1) for key in keys] == [point(key, 1) for key in keys]
    assert not {point(key, 1) for key in keys} & {point(key, 2) for key in keys}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=1, max_size=120), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_each_label_has_its_shares_as_far_as_whole_components_allow(rows, seed):
    texts, labels = np.array(rows).T
    # One label a text, so that what is checked is the drawing and not the mixture.
    labels = texts % 3
    standing = np.zeros((3, 3), np.int64)
    items = items_of([Row(f"{n:03}", int(text)) for n, text in enumerate(texts)])
    side = assign(items, np.zeros((0, 2), np.int64), by_label(labels, standing, SHARES, seed)).side
    for label in range(3):
        mine = labels == label
        largest = np.bincount(texts[mine]).max(initial=0)
        for code, share in enumerate(SHARES.values()):
            assert abs(np.sum(side[mine] == code) - share * mine.sum()) <= 2 * largest


def test_a_label_that_grows_in_waves_keeps_its_shares():
    label, standing = np.zeros(400, np.int64), np.zeros((1, 3), np.int64)
    rows, present = [Row(f"{n:03}", n) for n in range(400)], {}
    for end in range(20, 401, 20):
        choose = by_label(label[:end], standing, SHARES, 5)
        present = place(rows[:end], [], 5, present, choose=choose)
        counts = [sum(side == wanted for side, _ in present.values()) for wanted in SIDES]
        standing = np.array([counts])
        assert all(abs(count - SHARES[side] * end) <= 1 for side, count in zip(SIDES, counts, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_many_labels_of_a_few_rows_do_not_all_leave_out_the_same_side(count, seed):
    wanted = {"train": 0.8, "validation": 0.1, "test": 0.1}
    label = np.repeat(np.arange(300), count)
    items = items_of([Row(f"{n:04}", n) for n in range(len(label))])
    choose = by_label(label, np.zeros((300, 3), np.int64), wanted, seed)
    side = assign(items, np.zeros((0, 2), np.int64), choose).side
    for code, share in enumerate(wanted.values()):
        assert abs(np.sum(side == code) - share * len(label)) <= 2
        of_label = np.bincount(label[side == code], minlength=300)
        assert np.abs(of_label - share * count).max() < 2


def test_many_small_labels_in_waves_keep_the_shares_and_their_places():
    label, rows, present = np.arange(240) // 2, [Row(f"{n:03}", n) for n in range(240)], {}
    standing = np.zeros((120, 3), np.int64)
    for end in range(30, 241, 30):
        before, choose = present, by_label(label[:end], standing, SHARES, 5)
        present = place(rows[:end], [], 5, present, choose=choose)
        assert before.items() <= present.items()
        sides = np.array([SIDES.index(present[row.id][0]) for row in rows[:end]])
        standing = np.stack([np.bincount(label[:end][sides == code], minlength=120) for code in range(3)], 1)
        counts = standing.sum(axis=0)
        assert all(abs(count - share * end) <= 2 for count, share in zip(counts, SHARES.values(), strict=True))


def test_small_components_of_one_label_do_not_make_up_for_a_large_one_of_another():
    rows = [Row(f"s{n:03}", 0 if n <= 300 else n) for n in range(401)]
    label = np.array([0, *([0] * 300), *([1] * 100)])
    choose = by_label(label, np.zeros((2, 3), np.int64), SHARES, 5)
    side = assign(items_of(rows), np.zeros((0, 2), np.int64), choose).side
    assert set(side[:301]) == {TRAIN}
    counts = np.bincount(side[301:], minlength=3)
    assert np.abs(counts - [60, 20, 20]).max() <= 2


def test_the_newest_are_tested_and_the_cutoffs_place_newcomers():
    rows = [Row(f"{n:02}", n) for n in range(50)]
    time = np.arange(50, dtype=np.int64)[::-1]
    choose = ByTime(time, SHARES)
    side = assign(items_of(rows), np.array([[0, 49]]), choose).side
    # The oldest is near the newest, so it is as new: tested too.
    assert side[49] == TEST and side[0] == TEST
    assert time[:49][side[:49] == TEST].min() > time[side == VALIDATION].max() > time[side == TRAIN].max()
    later = ByTime(np.array([-5, choose.cutoffs[0], 10**6]), SHARES, choose.cutoffs)
    newer = assign(items_of([Row("a", 0), Row("b", 1), Row("c", 2)]), np.zeros((0, 2), np.int64), later)
    assert newer.side.tolist() == [TRAIN, VALIDATION, TEST]


@given(growing_data(), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_folds_hold_whole_components_and_are_of_like_size(data, count, seed):
    rows, near, _ = data
    items, edges = items_of(rows), np.array(near, np.int64).reshape(-1, 2)
    component = components(items, np.arange(len(rows)), edges, tied=True)
    fold = folds(component, [f"{n}" for n in range(component.max() + 1)], count, seed)
    for number in range(component.max() + 1):
        assert len(set(fold[component == number])) == 1
    sizes = np.bincount(fold, minlength=count)
    assert sizes.max() - sizes.min() <= np.bincount(component).max()


def test_what_was_held_out_stays_so_when_it_comes_back():
    history = replace(newcomers(1), side=np.array([HELD], np.int8), returns=np.array([True]))
    assert assign(items_of([Row("a", 0)]), np.zeros((0, 2), np.int64), by_hash(SHARES, 1, 1), history).side[0] == HELD


@pytest.mark.parametrize("size", [0, 1])
def test_no_and_one_example_are_placed_too(size):
    rows = [Row("a", 0)][:size]
    assert len(assign(items_of(rows), np.zeros((0, 2), np.int64), by_hash(SHARES, 1, size)).side) == size
