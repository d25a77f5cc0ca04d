import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.corpus import ROW_GROUP, CorpusWriter
from pipelines.data.display.browse import Filters, page_of, rows_of
from pipelines.data.display.queues import MEMBERS, clusters_of, suspects_of
from pipelines.data.display.view import Sides, View, choices, kinds_of, rows_with_ids
from pipelines.data.evidence import TABLES, write_evidence
from pipelines.data.prepare import evidence_of, prepare
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.workspace import Workspace
from tests.pipelines.data import planted


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLUICE_STORAGE", str(folder / "workspace"))
        workspace = Workspace()
    recipe = Recipe.model_validate(planted.content(planted.write(folder / "planted.jsonl")))
    quiet = Progress(quiet=True)
    return View(prepare(recipe, workspace, quiet), evidence_of(recipe, workspace, quiet), ("email",))


def numbers(page):
    return [row.number for row in page.rows]


def test_pages_follow_one_another_without_gap_or_repeat(view):
    seen, offset = [], 0
    while True:
        page = page_of(view, Filters(), offset, 50)
        seen += numbers(page)
        assert page.total == len(view.corpus)
        if not page.more:
            break
        offset += 50
    assert seen == list(range(len(view.corpus)))
    assert page_of(view, Filters(), 10_000).rows == ()


def test_filters_by_columns_say_how_many_there_are(view):
    letters = page_of(view, Filters(source="letters"), 0, 400)
    expected = [number for number, row in enumerate(planted.rows()) if row["source"] == "letters"]
    assert numbers(letters) == expected and letters.total == len(expected) and not letters.more
    both = page_of(view, Filters(source="letters", label="harbour"), 0, 400)
    assert all(row.facts["source"] == "letters" and row.facts["label"] == "harbour" for row in both.rows)
    assert 0 < both.total < letters.total
    assert page_of(view, Filters(source="nobody")).total == 0
    assert page_of(view, Filters(label="letters")).total == 0


def test_personal_data_are_found_by_kind_and_masked(view):
    page = page_of(view, Filters(private="any"))
    assert page.total == 3 and all(row.private == ("email",) for row in page.rows)
    assert page_of(view, Filters(private="email")).rows == page.rows
    assert page_of(view, Filters(private="iban")).total == 0
    assert kinds_of(view, "private") == [("email", 3)]
    shown = repr(page.rows)
    assert planted.MAIL not in shown and "<email>" in shown
    as_it_is = page_of(View(view.corpus, view.evidence), Filters(private="any"))
    assert planted.MAIL in repr(as_it_is.rows)


def test_a_search_reads_texts_in_order_whatever_the_case_and_what_is_masked_is_not_found(view):
    assert [row.turns[0]["content"] for row in page_of(view, Filters(contains="BELL tower")).rows] == [
        "Where is the bell tower of the museum?"
    ]
    first = page_of(view, Filters(contains="library"), 0, 5)
    second = page_of(view, Filters(contains="library"), 5, 5)
    assert first.more and first.total is None
    assert numbers(first) == sorted(numbers(first)) and numbers(first)[-1] < numbers(second)[0]
    assert page_of(view, Filters(contains=planted.MAIL)).rows == ()
    # Neither the JSON around the texts nor a name of its fields is text.
    assert numbers(page_of(view, Filters(contains="<Email>"))) == numbers(page_of(view, Filters(private="email")))
    assert page_of(view, Filters(contains='"role"')).rows == ()
    assert page_of(view, Filters(contains="assistant")).rows == ()
    assert len(page_of(view, Filters(contains='<img src="http')).rows) == 1


def test_a_search_keeps_to_the_other_filters(view):
    everywhere = page_of(view, Filters(contains="harbour"), 0, 400)
    letters = page_of(view, Filters(contains="harbour", source="letters"), 0, 400)
    assert numbers(letters) == [row.number for row in everywhere.rows if row.facts["source"] == "letters"]


def test_sides_filter_too(view):
    codes = np.full(len(view.corpus), -1, np.int8)
    codes[[2, 5]], codes[7] = 0, 1
    divided = View(view.corpus, view.evidence, (), Sides(("train", "test"), codes))
    assert numbers(page_of(divided, Filters(side="train"))) == [2, 5]
    assert numbers(page_of(divided, Filters(side="test"))) == [7]
    assert page_of(divided, Filters(side="none")).total == len(view.corpus) - 3
    assert [row.side for row in rows_of(divided, [7, 2, 0])] == ["test", "train", None]
    assert page_of(view, Filters(side="train")).total == 0


def test_values_are_offered_by_their_frequency(view):
    offered = choices(view, "source")
    assert sum(count for _, count in offered) == len(view.corpus)
    assert offered == sorted(offered, key=lambda item: -item[1])
    assert choices(view, "no such column") == []


def test_rows_are_found_by_their_ids(view):
    rows = rows_of(view, [3, 200])
    found = rows_with_ids(view.corpus, [row.id for row in rows] + ["unknown"])
    assert found == {rows[0].id: 3, rows[1].id: 200}
    # The first of those that repeat one another.
    assert rows_with_ids(view.corpus, [rows_of(view, [309])[0].id]).popitem()[1] == 20


def test_a_page_of_a_large_corpus_reads_one_row_group(view, tmp_path, monkeypatch):
    copies = 120
    table = pa.concat_tables([pq.read_table(view.corpus.folder / "rows.parquet")] * copies)
    with CorpusWriter(tmp_path / "corpus") as writer:
        writer.write(table)
        writer.write_bad(view.corpus.bad)
        corpus = writer.finish(view.corpus.note)
    numbers_of = pa.array(np.arange(len(table)))
    found = {name: pq.read_table(view.evidence.folder / f"{name}.parquet") for name in TABLES}
    found["clusters"] = pa.table({"text": numbers_of, "cluster": numbers_of})
    large = View(corpus, write_evidence(tmp_path / "evidence", found, view.evidence.note))
    groups = -(-len(table) // ROW_GROUP)
    assert groups >= 5
    # The codes of a column, for its filters, are read once; what follows is a page alone.
    page_of(large, Filters(source="letters"), 0, 25)
    asked, read_group = [], pq.ParquetFile.read_row_group

    def counted(file, group, **how):
        asked.append((group, tuple(how["columns"])))
        return read_group(file, group, **how)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    for offset in (0, 2 * ROW_GROUP + 100, len(table) - 25):
        asked.clear()
        assert len(page_of(large, Filters(), offset, 25).rows) == 25
        assert [group for group, _ in asked] == [offset // ROW_GROUP]
        assert "text_key" not in asked[0][1]
    asked.clear()
    assert len(page_of(large, Filters(source="letters"), 0, 25).rows) == 25
    assert [group for group, _ in asked] == [0]


def test_near_duplicates_stand_beside_the_first_of_their_cluster(view):
    found, total = clusters_of(view, "near", 0, 3)
    assert len(found) == 3 and total == 8
    largest = found[0]
    assert largest.number == 0 and largest.rows == largest.texts == 3
    assert [member.row.number for member in largest.members] == [0, 300, 308]
    assert all(member.similarity is not None and member.similarity >= 0.7 for member in largest.members[1:])
    assert [cluster.rows for cluster in found] == sorted((c.rows for c in found), reverse=True)
    rest, _ = clusters_of(view, "near", 3, 50)
    assert len(rest) == total - 3 and not {c.number for c in rest} & {c.number for c in found}


def test_exact_repeats_are_clusters_of_one_text(view):
    found, total = clusters_of(view, "exact")
    assert total == 6 and all(cluster.texts == 1 and cluster.rows == 2 for cluster in found)
    assert found[0].members[0].copies == (20, 309) and len(found[0].members) <= MEMBERS


def test_suspects_come_worst_first_and_each_row_once(view, tmp_path):
    table = pa.table(
        {
            "row": pa.array([4, 9, 4, 2], pa.int64()),
            "kind": ["length", "length", "refusal", "refusal"],
            "score": pa.array([7.0, 9.0, 1.0, 1.0], pa.float32()),
            "reason": ["short", "long", "declines", "declines"],
        }
    )
    rest = {name: pq.read_table(view.evidence.folder / f"{name}.parquet") for name in TABLES if name != "suspects"}
    queue = View(view.corpus, write_evidence(tmp_path / "evidence", rest | {"suspects": table}, view.evidence.note))
    assert [row.number for row in suspects_of(queue, "length").rows] == [9, 4]
    # Of more kinds first; then the worst of each kind, whatever the unit of its score.
    everything = suspects_of(queue, None)
    assert [row.number for row in everything.rows] == [4, 9, 2] and everything.total == 3
    assert [one.kind for one in everything.rows[0].suspicions] == ["length", "refusal"]
    assert [row.number for row in suspects_of(queue, None, without=np.array([4])).rows] == [9, 2]
    assert numbers(page_of(queue, Filters(suspect="refusal"))) == [2, 4]
    assert kinds_of(queue, "suspects") == [("length", 2), ("refusal", 2)]
    assert suspects_of(queue, "unknown").total == 0
