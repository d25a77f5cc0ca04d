"""From sources to examples, by either driver."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from pipelines.data.reading.read import choose_units, dataset_fingerprint
from pipelines.data.reading.sources import list_files
from tests.pipelines.data.rows_read import read_examples

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}", "topic": f"t{i % 7}"} for i in range(50)]


def test_files_are_read_in_their_order_by_glob_folder_or_list(dataset, reading_of, tmp_path):
    dataset("data/b/two.jsonl", ROWS[10:])
    dataset("data/a/one.jsonl", ROWS[:10])
    dataset("data/notes.txt", "not data")
    one, two = tmp_path / "data/a/one.jsonl", tmp_path / "data/b/two.jsonl"
    for source in (str(tmp_path / "data/**/*.jsonl"), str(tmp_path / "data"), (str(two), str(one), str(two))):
        reading = read_examples(reading_of(source))
        assert [(row.file, row.position) for row in reading.examples[8:12]] == [
            ("a/one.jsonl", 9),
            ("a/one.jsonl", 10),
            ("b/two.jsonl", 1),
            ("b/two.jsonl", 2),
        ]
        assert (reading.rows, reading.driver) == (50, "one process")


def test_a_file_uri_is_read_like_a_path(dataset, reading_of, tmp_path):
    recipe = dataset("a.jsonl", ROWS)
    by_uri = reading_of(f"file://{tmp_path}/*.jsonl")
    assert read_examples(by_uri).examples == read_examples(recipe).examples
    assert dataset_fingerprint(by_uri) == dataset_fingerprint(recipe)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("*.jsonl", 2), ("?.jsonl", 1), ("b[0-9].jsonl", 1), ("*/*.jsonl", 2), ("**/*.jsonl", 5), ("a/**/c.jsonl", 2)],
)
def test_a_pattern_means_the_same_in_a_uri_and_in_a_path(dataset, tmp_path, pattern, count):
    for name in ("a.jsonl", "b1.jsonl", ".hidden.jsonl", "a/c.jsonl", "a/b/c.jsonl", "d/e.jsonl", ".f/g.jsonl"):
        dataset(f"data/{name}", ROWS)
    local, remote = list_files((f"{tmp_path}/data/{pattern}",)), list_files((f"file://{tmp_path}/data/{pattern}",))
    assert [file.uri for file in remote] == [f"file://{file.uri}" for file in local]
    assert len(local) == count


def test_sources_that_name_nothing_are_all_named_with_what_is_there(dataset, reading_of, tmp_path):
    dataset("examples.jsonl", ROWS)
    missing = (str(tmp_path / "exemples.jsonl"), str(tmp_path / "no/*.csv"))
    with pytest.raises(UserError) as caught:
        read_examples(reading_of(missing))
    assert "exemples.jsonl: no such file; there are examples.jsonl" in str(caught.value)
    assert "no/*.csv: no such file (there is no folder" in str(caught.value)


def test_every_broken_file_is_named_in_one_message(dataset, reading_of, tmp_path):
    dataset("good.jsonl", ROWS)
    dataset("latin.jsonl", '{"prompt": "é"}'.encode("latin-1"))
    dataset("header.csv", "prompt,completion\n")
    with pytest.raises(UserError) as caught:
        read_examples(reading_of(str(tmp_path / "*.*"), on_bad_row="raise"))
    message = str(caught.value)
    assert "2 files cannot be read" in message and "50 readable examples" in message
    assert "latin.jsonl: byte 12" in message and "header.csv: 0 rows" in message


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", "{}\n"), ("a.json", "[{}]")])
def test_a_file_whose_rows_have_no_columns_is_refused_with_the_reason(dataset, name, content):
    with pytest.raises(UserError) as caught:
        read_examples(dataset(name, content))
    assert "none of 1 rows makes an example" in caught.value.message
    assert caught.value.remedy == "the row has no columns"


def test_a_row_without_columns_is_kept_aside_beside_good_ones(dataset):
    reading = read_examples(dataset("a.jsonl", [{}, *ROWS, {}]))
    assert len(reading.examples) == 50
    assert [(row.position, row.kind, row.content) for row in reading.bad] == [
        (1, "missing", "{}"),
        (52, "missing", "{}"),
    ]


@pytest.mark.parametrize("line", ['{"prompt": ', "{}"])
def test_the_format_is_chosen_at_the_first_row_with_columns_however_late(dataset, line):
    late = json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1] | {"whose": "g"}) + "\n"
    reading = read_examples(dataset("a.jsonl", f"{line}\n" * 1500 + late, group_by="whose"))
    assert [row.position for row in reading.examples] == [1501, 1502]
    assert [row.group for row in reading.examples] == [None, "g"]
    assert len(reading.bad) == 1500 and {row.file for row in reading.bad} == {"a.jsonl"}


def test_the_fingerprint_follows_content_and_not_place(dataset, tmp_path, reading_of):
    recipe = dataset("one/a.jsonl", ROWS)
    before = dataset_fingerprint(recipe)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    moved = tmp_path / "two/a.jsonl"
    assert dataset_fingerprint(reading_of(str(moved))) == before
    data = moved.read_bytes()
    moved.write_bytes(data.replace(b"answer 7", b"answer 8", 1))
    assert dataset_fingerprint(reading_of(str(moved))) != before
    assert dataset_fingerprint(reading_of(str(tmp_path / "one/a.jsonl"), instruction="x")) != before
    assert dataset_fingerprint(reading_of(str(tmp_path / "one/a.jsonl"), seed=1)) == before


def test_the_seed_enters_the_fingerprint_where_examples_are_drawn_by_it(dataset):
    drawn = [dataset_fingerprint(dataset("a.jsonl", ROWS, seed=seed, max_examples=10)) for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_max_examples_draws_whole_groups_and_counts_the_rest(dataset):
    reading = read_examples(dataset("a.jsonl", ROWS, group_by="topic", max_examples=20))
    sizes = {group: sum(row["topic"] == group for row in ROWS) for group in {e.group for e in reading.examples}}
    assert sum(sizes.values()) == len(reading.examples) <= 20
    assert reading.left_out == 50 - len(reading.examples)
    other = read_examples(dataset("a.jsonl", ROWS, seed=5, group_by="topic", max_examples=20))
    assert {e.group for e in other.examples} != {e.group for e in reading.examples}


def test_no_group_that_fits_is_an_error(dataset):
    rows = [row | {"topic": "all"} for row in ROWS]
    with pytest.raises(UserError, match="none of 50 rows"):
        read_examples(dataset("a.jsonl", rows, group_by="topic", max_examples=20))


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 9)), st.integers(1, 30), st.integers(0, 99))
def test_the_choice_is_at_most_so_many_with_whole_groups_and_as_full_as_it_gets(numbers, most, seed):
    sizes = {f"group {number}": size for number, size in numbers.items()}
    kept = choose_units(sizes, most, seed)
    room = most - sum(sizes[unit] for unit in kept)
    assert room >= 0
    assert all(size > room for unit, size in sizes.items() if unit not in kept)


def test_the_choice_does_not_depend_on_the_order():
    sizes = {f"example {number}": 1 for number in range(30)}
    chosen = choose_units(sizes, 10, 1)
    assert choose_units(dict(reversed(sizes.items())), 10, 1) == chosen
    assert choose_units(sizes, 10, 2) != chosen


def test_a_repeat_of_a_row_counts_towards_max_examples_and_comes_with_it(dataset):
    reading = read_examples(dataset("a.jsonl", [row for row in ROWS for _ in "ab"], max_examples=21))
    assert len(reading.examples) == 20 and len({example.id for example in reading.examples}) == 10


@pytest.mark.cluster
def test_ray_data_reads_the_same_examples_and_bad_rows_as_one_process(dataset, reading_of, tmp_path, ray_cluster):
    for number in range(3):
        dataset(f"many/{number}.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS * 50) + '{"prompt": \n')
    dataset("many/3.csv", "prompt,completion\na,b\nc\n")
    recipe = reading_of(str(tmp_path / "many"))
    alone = read_examples(recipe)
    spread = read_examples(recipe, small_bytes=0)
    assert (alone.driver, spread.driver) == ("one process", "Ray Data")
    assert len(alone.examples) == 7501 and len(alone.bad) == 4
    assert spread.examples == alone.examples
    assert spread.bad == alone.bad


@pytest.mark.cluster
def test_a_worker_outlives_a_file_that_cannot_be_read(dataset, reading_of, tmp_path, ray_cluster):
    dataset("mixed/bad.parquet", b"PAR1 is how it begins")
    dataset("mixed/good.jsonl", ROWS)
    with pytest.raises(UserError) as caught:
        read_examples(reading_of(str(tmp_path / "mixed"), on_bad_row="raise"), small_bytes=0)
    assert "bad.parquet: no readable Parquet" in str(caught.value)
    assert "50 readable examples" in str(caught.value)
