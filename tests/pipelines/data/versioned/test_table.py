import numpy as np
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import StageFailed, UserError
from pipelines.data.sides import past as past_module
from pipelines.data.sides.past import ever_tested, read_past
from pipelines.data.sides.splitting import NEWCOMER, TEST, TRAIN
from pipelines.data.versioned import table as tables
from pipelines.data.versioned.table import COLUMNS, POLICY, read_side, read_version, table_fingerprint, write_table
from pipelines.data.versioned.table_fingerprint import DIGESTED, TableDigest, version_1_fingerprint
from pipelines.fingerprint import fingerprint
from pipelines.gates import Report
from tests.pipelines.data.small_table import rows, write_rows


def report_on(uri, version, split):
    return Report.model_construct(produced={"table": str(uri), "version": str(version), "split": split})


def test_a_side_is_read_back_ordered_by_id_with_every_column(tmp_path):
    written = write_rows(
        tmp_path / "t",
        {"id": "c", "fold": 1, "label": "x", "rejected": '"no"'},
        {"id": "b", "split": "test"},
        *({"id": f"a{n}", "fold": 0} for n in range(5)),
    )
    side = read_side(report_on(written.uri, written.version, written.fingerprint), "train")
    assert side["id"].to_pylist() == ["a0", "a1", "a2", "a3", "a4", "c"]
    assert tuple(side.column_names) == COLUMNS
    assert side["fold"].to_pylist() == [0] * 5 + [1] and side["rejected"][5].as_py() == '"no"'
    assert len(read_side(report_on(written.uri, 0, written.fingerprint), "validation")) == 0


def test_a_table_that_was_tampered_with_or_is_gone_is_not_read(tmp_path):
    written = write_rows(tmp_path / "t", {"id": "a"}, {"id": "b"})
    with pytest.raises(UserError, match="is not what the split left"):
        read_side(report_on(written.uri, 0, "0" * 64), "train")
    with pytest.raises(UserError, match="version 7 of the split cannot be read"):
        read_side(report_on(written.uri, 7, written.fingerprint), "train")
    next((tmp_path / "t").glob("*.parquet")).unlink()
    with pytest.raises(UserError, match="version 0 of the split cannot be read"):
        read_side(report_on(written.uri, 0, written.fingerprint), "train")


def test_a_later_version_changes_nothing_for_who_reads_the_earlier(tmp_path):
    first = write_rows(tmp_path / "t", {"id": "a"})
    before = read_side(report_on(first.uri, 0, first.fingerprint), "train")
    assert write_rows(tmp_path / "t", {"id": "a"}, {"id": "b"}).version == 1
    assert read_side(report_on(first.uri, 0, first.fingerprint), "train").equals(before)


def test_what_is_stored_otherwise_than_it_was_given_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "table_fingerprint", lambda uri, version: "0" * 64)
    with pytest.raises(StageFailed, match="is not what was written"):
        write_rows(tmp_path / "t", {"id": "a"})


def version_1(path, *given, policy="p"):
    """A table as it was written before there were folds."""
    names = [name for name in COLUMNS if name not in ("rejected", "label", "fold")]
    table = pa.Table.from_batches(rows(*given)).select(names).sort_by("id")
    said = {POLICY: policy, "sluice.starts_over": "false", "sluice.schema_version": "1"}
    write_deltalake(str(path), table, mode="overwrite", commit_properties=CommitProperties(custom_metadata=said))
    hashed = [table[name].to_pylist() for name in ("id", "messages", "group", "cluster", "split")]
    return fingerprint(1, sorted(zip(*hashed, strict=True), key=lambda row: row[0]))


def test_a_table_of_the_version_before_is_read_its_new_columns_null_and_grows_on(tmp_path):
    path = tmp_path / "t"
    split = version_1(path, {"id": "b"}, {"id": "a", "group": "g"}, {"id": "c", "split": "test"})
    side = read_side(report_on(path, 0, split), "train")
    assert side["id"].to_pylist() == ["a", "b"]
    assert side["fold"].null_count == side["label"].null_count == side["rejected"].null_count == 2
    assert side["fold"].type == pa.int32()
    assert len(read_past(str(path), "p").present) == 3
    written = write_rows(path, {"id": "a", "fold": 2})
    assert (written.version, version_1_fingerprint(written.uri, 1)) == (1, None)
    with pytest.raises(UserError, match="is not what the split left"):
        read_side(report_on(path, 0, "0" * 64), "train")


cells = st.one_of(st.none(), st.text(alphabet="ab:-3\x00", max_size=4))
digested = st.fixed_dictionaries(
    {name: cells for name in DIGESTED if name != "fold"} | {"fold": st.sampled_from([None, 0, 3])}
)


def digest(given):
    found = TableDigest()
    for batch in pa.Table.from_pylist(given, schema=pa.schema([tables.schema().field(n) for n in DIGESTED])).to_batches(
        2
    ):
        found.add(batch)
    return found.hexdigest()


@given(st.lists(digested, max_size=5), st.lists(digested, max_size=5), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_equal_rows_in_any_order_have_one_fingerprint_and_other_rows_another(left, right, chance):
    shuffled = list(left)
    chance.shuffle(shuffled)
    assert digest(shuffled) == digest(left)
    same = sorted(map(repr, left)) == sorted(map(repr, right))
    assert (digest(left) == digest(right)) == same


def test_where_a_row_came_from_is_no_part_of_the_fingerprint_and_what_it_says_is(tmp_path):
    plain = write_rows(tmp_path / "a", {"id": "a"}).fingerprint
    assert write_rows(tmp_path / "b", {"id": "a", "source": "web"}).fingerprint == plain
    for name in ("messages", "group", "cluster", "split", "label", "rejected"):
        assert write_rows(tmp_path / name, {"id": "a", name: "test"}).fingerprint != plain
    assert table_fingerprint(str(tmp_path / "a"), 0) == plain


def test_the_past_is_the_last_version_and_what_earlier_ones_of_its_policy_held(tmp_path):
    path = str(tmp_path / "t")
    assert read_past(path, "p").present is None and not read_past(path, "p").started_over
    write_rows(path, {"id": "a", "split": "test"}, {"id": "b"}, {"id": "c"}, policy="another")
    write_rows(path, {"id": "b", "split": "test"}, {"id": "d"}, {"id": "e", "cluster": "d"})
    write_rows(path, {"id": "b", "split": "test"}, {"id": "f"})
    past = read_past(path, "p")
    history = past.history(pa.array(["a", "b", "d", "e", "f", "x"]))
    assert history.side.tolist() == [NEWCOMER, TEST, TRAIN, TRAIN, TRAIN, NEWCOMER]
    assert history.cluster.tolist() == [b"", b"b", b"d", b"d", b"f", b""]
    assert history.returns.tolist() == [False, False, True, True, False, False]
    assert read_past(path, "new").started_over
    write_rows(path, {"id": "z"}, starts_over=True, cutoffs=(-5, 7))
    assert read_past(path, "p").gone is None and read_past(path, "p").cutoffs == (-5, 7)


def test_what_was_ever_tested_is_known_under_every_policy(tmp_path, monkeypatch):
    path = str(tmp_path / "t")
    write_rows(path, {"id": "a", "split": "test", "group": "g"}, {"id": "b"}, policy="one")
    write_rows(path, {"id": "a"}, {"id": "b", "split": "test"}, {"id": "c"}, policy="two", starts_over=True)
    write_rows(path, {"id": "b", "split": "test"}, policy="two")
    read = []
    monkeypatch.setattr(
        past_module, "read_batches", lambda *place: read.append(place[1]) or tables.read_batches(*place)
    )
    tested = ever_tested(path)
    # Texts are read of versions that tested somebody else.
    assert read == [2, 0]
    assert sorted(tested.ids.to_pylist()) == ["a", "b"] and "g" in tested.groups.to_pylist()
    assert [text for _, text in tested.texts("", pa.array(["b"]))] == ["a\nyes"]
    assert ever_tested(str(tmp_path / "none")).ids.to_pylist() == []


def test_rows_stream_in_and_a_read_holds_a_batch_at_a_time(tmp_path):
    def many():
        for start in range(0, 40_000, 4_000):
            ids = np.char.mod("%05d", np.arange(start, start + 4_000)).tolist()
            yield from rows(*({"id": id} for id in ids[:1]))
            columns = [
                pa.array(ids if name == "id" else [None] * len(ids), kind)
                for name, kind in zip(COLUMNS, tables.schema().types, strict=True)
            ]
            yield pa.RecordBatch.from_arrays([column.slice(1) for column in columns], schema=tables.schema())

    written = write_table(str(tmp_path / "t"), many(), "p")
    assert max(len(batch) for batch in tables.read_batches(written.uri, 0)) <= tables.BATCH_ROWS
    assert read_version(written.uri, 0, ("id",))["id"].to_pylist() == [f"{n:05}" for n in range(40_000)]
