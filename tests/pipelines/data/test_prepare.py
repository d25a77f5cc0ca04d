"""A corpus and its evidence: made once for the same data and settings, anew for others, and when they are gone."""

import gzip
import io
import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import StageFailed, UserError
from pipelines.data import keys
from pipelines.data import prepare as module
from pipelines.data.prepare import chosen_rows, evidence_of, prepare
from pipelines.data.reading import read
from pipelines.progress import Progress
from pipelines.recipe import Recipe

QUIET = Progress(quiet=True)
ROWS = [
    {
        "prompt": f"tell me something about the number {i} and what it is",
        "completion": f"it is {i}",
        "topic": f"t{i % 4}",
    }
    for i in range(30)
]


def changed(recipe, section, **keys):
    content = recipe.model_dump()
    content[section] |= keys
    return Recipe.model_validate(content)


def test_the_same_data_are_read_once(dataset, workspace, monkeypatch):
    recipe = dataset("a.jsonl", ROWS)
    first = prepare(recipe, workspace, QUIET)
    monkeypatch.setattr(module, "_read_into", None)
    assert prepare(recipe, workspace, QUIET).folder == first.folder
    assert len(first) == 30 and first.note.dataset == read.dataset_fingerprint(recipe)


@pytest.mark.parametrize(
    "section,keys",
    [
        ("dataset", {"instruction": "Be brief."}),
        ("audit", {"near_duplicate_threshold": 0.5}),
        ("audit", {"private": {"kinds": ["email"]}}),
    ],
)
def test_other_settings_that_columns_depend_on_are_another_corpus(dataset, workspace, section, keys):
    recipe = dataset("a.jsonl", ROWS)
    assert (
        prepare(recipe, workspace, QUIET).folder != prepare(changed(recipe, section, **keys), workspace, QUIET).folder
    )


def test_rules_that_read_no_column_keep_the_corpus(dataset, workspace):
    recipe = dataset("a.jsonl", ROWS)
    other = changed(recipe, "audit", min_examples=5, private={"action": "drop"})
    assert prepare(recipe, workspace, QUIET).folder == prepare(other, workspace, QUIET).folder
    assert evidence_of(recipe, workspace, QUIET).folder == evidence_of(other, workspace, QUIET).folder


def test_other_folds_are_other_evidence_about_the_same_corpus(dataset, workspace):
    recipe = dataset("a.jsonl", ROWS)
    other = changed(recipe, "audit", folds=3)
    assert evidence_of(recipe, workspace, QUIET).folder != evidence_of(other, workspace, QUIET).folder
    assert prepare(recipe, workspace, QUIET).folder == prepare(other, workspace, QUIET).folder


@pytest.mark.parametrize("version", ["PROFILE_VERSION", "SKETCH_VERSION", "EVIDENCE_VERSION"])
def test_evidence_that_other_code_found_is_found_anew_about_its_own_corpus(dataset, workspace, monkeypatch, version):
    recipe = dataset("a.jsonl", ROWS)
    before = prepare(recipe, workspace, QUIET), evidence_of(recipe, workspace, QUIET)
    monkeypatch.setattr(keys, version, 1000)
    corpus, evidence = prepare(recipe, workspace, QUIET), evidence_of(recipe, workspace, QUIET)
    assert evidence.folder != before[1].folder
    assert evidence.note.corpus == str(corpus.folder)
    assert (corpus.folder == before[0].folder) is (version == "EVIDENCE_VERSION")


def test_other_weights_of_the_model_that_compares_meanings_are_other_evidence(dataset, workspace, tiny_model, tmp_path):
    from pipelines.data.keys import evidence_key

    base = shutil.copytree(tiny_model, tmp_path / "base")
    for semantic in ({"model": str(base)}, {}):
        recipe = changed(dataset("a.jsonl", ROWS), "audit", semantic=semantic)
        recipe = Recipe.model_validate(recipe.model_dump() | {"models": [{"base": str(base)}]})
        before = evidence_key(recipe, workspace, "d")
        (base / "generation_config.json").write_text(f'{{"eos_token_id": {len(semantic)}}}')
        assert evidence_key(recipe, workspace, "d") != before


def test_what_is_gone_is_made_again_with_the_same_content(dataset, workspace):
    recipe = dataset("a.jsonl", [*ROWS, *ROWS[:5]])
    corpus, evidence = prepare(recipe, workspace, QUIET), evidence_of(recipe, workspace, QUIET)
    before = (corpus.folder / "rows.parquet").read_bytes(), (evidence.folder / "clusters.parquet").read_bytes()
    shutil.rmtree(corpus.folder)
    shutil.rmtree(evidence.folder)
    again = evidence_of(recipe, workspace, QUIET)
    assert ((corpus.folder / "rows.parquet").read_bytes(), (again.folder / "clusters.parquet").read_bytes()) == before
    assert len(prepare(recipe, workspace, QUIET)) == 35


def test_evidence_names_clusters_by_their_smallest_row(dataset, workspace):
    evidence = evidence_of(dataset("a.jsonl", [*ROWS, ROWS[3]]), workspace, QUIET)
    assert evidence.text[30] == 3 and len(evidence.text) == 31
    assert (evidence.cluster <= evidence.text).all() and (evidence.cluster[evidence.cluster] == evidence.cluster).all()
    assert evidence.leaks("0" * 64) is None
    assert set(evidence.edges.column_names) == {"left", "right", "similarity", "kind"}


def test_data_that_change_while_they_are_read_leave_no_corpus(dataset, workspace, tmp_path, monkeypatch):
    recipe, original = dataset("a.jsonl", ROWS), read.raw_rows

    def growing(file):
        with (tmp_path / "a.jsonl").open("a") as stream:
            stream.write(json.dumps(ROWS[0]) + "\n")
        return original(file)

    monkeypatch.setattr(read, "raw_rows", growing)
    with pytest.raises(StageFailed, match="changed while"):
        prepare(recipe, workspace, QUIET)
    assert not list((tmp_path / "workspace" / "corpora").glob("*/corpus.json"))


def cut_gzip():
    return gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS * 50).encode())[:-40]


def parquet_with_a_damaged_page():
    stream = io.BytesIO()
    rows = [row | {"completion": f"{number}" * 9} for number, row in enumerate(ROWS * 20)]
    pq.write_table(pa.Table.from_pylist(rows), stream, compression="snappy", use_dictionary=False)
    data = stream.getvalue()
    return data[:60] + b"\xff" * 300 + data[360:]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.jsonl.gz", cut_gzip, "damaged or cut short"),
        ("page.parquet", parquet_with_a_damaged_page, "no readable Parquet"),
    ],
)
def test_a_corrupt_file_among_twenty_loses_nothing_of_the_other_nineteen(
    dataset, reading_of, workspace, tmp_path, name, content, reason
):
    for number in range(19):
        dataset(f"many/{number:02}.jsonl", [row | {"completion": f"{number}"} for row in ROWS])
    dataset(f"many/{name}", content())
    corpus = prepare(reading_of(str(tmp_path / "many")), workspace, QUIET)
    files, names = corpus.codes("file")
    whole = [each for each in names if each != name]
    assert len(whole) == 19
    assert [(files == names.index(each)).sum() for each in whole] == [30] * 19
    broken = corpus.bad.to_pylist()
    assert [(row["kind"], row["file"]) for row in broken] == [("file", name)]
    assert reason in broken[0]["reason"]
    with pytest.raises(UserError, match=rf"{re.escape(name)}.*{reason}[^$]*570 readable"):
        prepare(reading_of(str(tmp_path / "many"), on_bad_row="raise"), workspace, QUIET)


def test_whole_groups_are_chosen_whatever_the_order_of_the_rows(dataset, workspace):
    few = [
        dataset(f"{name}.jsonl", rows, group_by="topic", max_examples=16)
        for name, rows in (("a", ROWS), ("b", ROWS[::-1]))
    ]
    chosen = [set(prepare(recipe, workspace, QUIET).column("id").to_pylist()) for recipe in few]
    assert chosen[0] == chosen[1] and 0 < len(chosen[0]) <= 16
    corpus = prepare(dataset("a.jsonl", ROWS), workspace, QUIET)
    assert chosen_rows(corpus, 30, 1) is None and chosen_rows(corpus, 7, 1).sum() == 7


def test_tokens_are_counted_where_the_base_is_here_and_null_where_it_is_not(dataset, workspace, tiny_model, tmp_path):
    base = tmp_path / "base"
    recipe = Recipe.model_validate(dataset("a.jsonl", ROWS).model_dump() | {"models": [{"base": str(base)}]})
    absent = prepare(recipe, workspace, QUIET, tokens=True)
    assert absent.column("tokens").null_count == 30 and absent.note.tokenizer is None
    shutil.copytree(tiny_model, base)
    # Who needs no tokens takes what is there: the split does not read a million rows again for a model that came.
    assert prepare(recipe, workspace, QUIET).folder == absent.folder
    present = prepare(recipe, workspace, QUIET, tokens=True)
    assert present.column("tokens").null_count == 0 and present.note.tokenizer == str(base)
    assert present.folder != absent.folder
    assert evidence_of(recipe, workspace, QUIET, corpus=present).folder == evidence_of(recipe, workspace, QUIET).folder


@pytest.mark.cluster
def test_ray_data_makes_the_same_corpus_as_one_process(dataset, reading_of, tmp_path, ray_cluster):
    for number in range(3):
        rows = [row | {"completion": f"{number} {i}"} for i, row in enumerate(ROWS * 80)]
        lines = [json.dumps(row) + "\n" for row in rows]
        # An early one too: it stands in the first of the tables that Ray joins into one block.
        dataset(f"many/{number}.jsonl", "".join([*lines[:5], "[1]\n", *lines[5:], '{"prompt": \n']))
    recipe = reading_of(str(tmp_path / "many"))
    alone = prepare(recipe, ray_cluster, QUIET)
    # Read now: the other one takes its place.
    table, bad, driver = alone.take(range(len(alone)), alone.columns), alone.bad, alone.note.driver
    spread = prepare(recipe, ray_cluster, QUIET, fresh=True, small_bytes=0)
    assert (driver, spread.note.driver) == ("one process", "Ray Data")
    assert len(spread) == 7200 and len(bad) == 6
    assert spread.take(range(len(spread)), spread.columns).equals(table)
    assert spread.bad.equals(bad)


@pytest.mark.cluster
def test_workers_that_have_no_tokenizer_get_the_drivers(dataset, ray_cluster, tiny_model, tmp_path, monkeypatch):
    from pipelines.data.reading import streaming

    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    recipe = Recipe.model_validate(dataset("a.jsonl", ROWS).model_dump() | {"models": [{"base": str(base)}]})
    alone = prepare(recipe, ray_cluster, QUIET, tokens=True).column("tokens").to_pylist()
    own = streaming.files_of

    def read_and_gone(folder):
        files = own(folder)
        base.rename(tmp_path / "elsewhere")
        return files

    monkeypatch.setattr(streaming, "files_of", read_and_gone)
    spread = prepare(recipe, ray_cluster, QUIET, tokens=True, fresh=True, small_bytes=0)
    assert spread.note.driver == "Ray Data" and spread.column("tokens").to_pylist() == alone


@pytest.mark.cluster
def test_what_a_worker_lacks_is_a_sentence(dataset, ray_cluster, monkeypatch):
    recipe = changed(dataset("a.jsonl", ROWS), "audit", private={"kinds": ["name"]})
    monkeypatch.setattr(module, "require_kinds", lambda kinds: None)
    with pytest.raises(UserError, match=r"On a worker: .*needs Presidio") as error:
        prepare(recipe, ray_cluster, QUIET, small_bytes=0)
    assert "pip install" in error.value.remedy
