"""Files that are broken, in another encoding, or larger than they look."""

import gzip
import io
import json
import pickle
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from pipelines.data.reading import formats
from tests.pipelines.data.rows_read import read_examples

ROW = {"prompt": "Wie heißt du?", "completion": "Ich heiße Ürsel."}
LINE = json.dumps(ROW, ensure_ascii=False) + "\n"


def texts(reading):
    return [tuple(turn["content"] for turn in example.turns) for example in reading.examples]


def refusal(recipe):
    dataset = recipe.dataset.model_copy(update={"on_bad_row": "raise"})
    with pytest.raises(UserError) as caught:
        read_examples(recipe.model_copy(update={"dataset": dataset}))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_an_empty_file_is_refused_by_name(dataset, name):
    assert f"{name}: the file is empty" in refusal(dataset(name, b""))


def test_a_csv_of_a_header_alone_has_0_rows(dataset):
    assert "a.csv: 0 rows" in refusal(dataset("a.csv", "prompt,completion\n"))


@pytest.mark.parametrize("name,content", [("a.jsonl", "\n\n"), ("a.json", "[]")])
def test_a_file_without_rows_has_0_rows(dataset, name, content):
    assert f"{name}: 0 rows" in refusal(dataset(name, content))


def test_a_truncated_line_is_quarantined_with_its_number(dataset):
    reading = read_examples(dataset("a.jsonl", LINE + "\n" + LINE + LINE[:20]))
    (bad,) = reading.bad
    assert len(reading.examples) == 2
    assert (bad.file, bad.position, bad.kind) == ("a.jsonl", 4, "syntax")
    assert "line 4" in bad.reason and "cut short" in bad.reason
    assert bad.content == LINE[:20]


def test_a_truncated_line_raises_with_its_number_where_the_recipe_says_so(dataset):
    message = refusal(dataset("a.jsonl", LINE + LINE[:20], on_bad_row="raise"))
    assert "a.jsonl, row 2" in message and "1 of 2 rows" in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "name,content",
    [
        ("a.jsonl", LINE),
        ("a.json", f"[{LINE}]"),
        ("a.csv", "prompt,completion\n{prompt},{completion}\n".format(**ROW)),
    ],
)
def test_what_a_byte_order_mark_settles_is_decoded(dataset, name, content, encoding):
    assert texts(read_examples(dataset(name, content.encode(encoding)))) == [tuple(ROW.values())]


def test_latin_1_is_refused_with_the_position_of_the_byte(dataset):
    data = LINE.encode() + LINE.encode("latin-1")
    message = refusal(dataset("a.jsonl", data))
    position = len(LINE.encode()) + LINE.encode("latin-1").index(0xDF)
    assert f"a.jsonl: byte {position} (line 2) is 0xdf" in message and "iconv" in message


def test_utf_16_without_a_mark_is_refused_and_never_guessed(dataset):
    assert "UTF-16 or UTF-32 without a byte-order mark" in refusal(dataset("a.jsonl", LINE.encode("utf-16-le")))


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_nul_and_lone_surrogates_are_quarantined(dataset, text):
    reading = read_examples(dataset("a.jsonl", [ROW, {"prompt": text, "completion": "b"}, ROW]))
    (bad,) = reading.bad
    assert (bad.position, bad.kind) == (2, "encoding")
    assert f"U+{ord(text[1]):04X}" in bad.reason
    bad.content.encode()
    assert "\x00" not in bad.content


@pytest.mark.parametrize("column", [{"note": "a\x00b"}, {"note": [{"deep": ["a\x00"]}]}, {"no\x00te": "a"}])
def test_nul_in_another_column_is_quarantined_too(dataset, column):
    reading = read_examples(dataset("a.jsonl", [ROW, ROW | column]))
    assert [(bad.position, bad.kind) for bad in reading.bad] == [(2, "encoding")]


@pytest.mark.parametrize("column", [{"note": "is \\u0000 a NUL?"}, {"note": [{"\\u0000": "\\\\u0000"}]}])
def test_the_six_characters_of_an_escaped_nul_are_text(dataset, column):
    reading = read_examples(dataset("a.jsonl", [ROW | column]))
    assert reading.bad == []
    assert json.loads(reading.examples[0].meta)["columns"] == column


def test_a_key_twice_in_an_object_is_quarantined(dataset):
    reading = read_examples(dataset("a.jsonl", LINE + '{"prompt": "a", "prompt": "b", "completion": "c"}\n'))
    assert "prompt stands twice" in reading.bad[0].reason


def test_a_line_nested_too_deep_is_quarantined(dataset):
    reading = read_examples(dataset("a.jsonl", LINE + "[" * 100_000 + "\n"))
    assert [bad.position for bad in reading.bad] == [2]


def test_a_line_that_holds_no_object_is_quarantined(dataset):
    reading = read_examples(dataset("a.jsonl", LINE + "[1]\n"))
    assert reading.bad[0].reason == "line 2 holds no object"


def test_json_that_is_cut_short_is_refused_by_name(dataset):
    assert "a.json: no JSON" in refusal(dataset("a.json", f"[{LINE}, "))


def test_lines_of_objects_in_a_json_file_are_told_their_name(dataset):
    assert "call it .jsonl" in refusal(dataset("a.json", LINE * 2))


def test_a_json_document_beyond_the_cap_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(formats, "CAP_DOCUMENT", 2**10)
    assert "a.json: a document of this kind may have" in refusal(dataset("a.json", f"[{','.join([LINE] * 40)}]"))
    assert "a.jsonl: a document of this kind may have" in refusal(dataset("a.jsonl", (LINE * 40).encode("utf-16")))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_only_a_line_feed_ends_a_line(dataset, encoding):
    row = {"prompt": "one\u2028two\x85three", "completion": "four"}
    data = (json.dumps(row, ensure_ascii=False) + "\n").encode(encoding)
    assert texts(read_examples(dataset("a.jsonl", data))) == [tuple(row.values())]


def test_a_ragged_csv_row_is_quarantined(dataset):
    reading = read_examples(dataset("a.csv", "prompt,completion\na,b\nc\nd,e\n"))
    assert [bad.position for bad in reading.bad] == [2]
    assert "has 1 fields, the header 2" in reading.bad[0].reason
    assert texts(reading) == [("a", "b"), ("d", "e")]


def test_a_quoted_csv_cell_keeps_its_lines_and_quotes(dataset):
    reading = read_examples(dataset("a.csv", 'prompt,completion\r\n"a\nb, ""c""",d\r\n'))
    assert texts(reading) == [('a\nb, "c"', "d")]


def test_a_quote_that_is_never_closed_refuses_the_file(dataset):
    assert "a.csv: line 3" in refusal(dataset("a.csv", 'prompt,completion\na,b\nc,"d\n'))


def test_a_column_that_stands_twice_is_refused(dataset):
    assert "the column prompt stands twice" in refusal(dataset("a.csv", "prompt,prompt,completion\na,b,c\n"))


def test_another_separator_is_named(dataset):
    assert "not separated by ','" in refusal(dataset("a.csv", "prompt;completion\na;b\n"))


def parquet(rows=None, table=None, **options):
    stream = io.BytesIO()
    pq.write_table(table if table is not None else pa.Table.from_pylist(rows), stream, **options)
    return stream.getvalue()


def test_parquet_holds_conversations_as_lists_of_structs(dataset):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert texts(read_examples(dataset("a.parquet", parquet([{"messages": messages}])))) == [("a", "b")]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:60] + b"\xff" * 300 + data[360:]])
def test_a_damaged_parquet_file_is_named_and_the_others_are_counted(dataset, tmp_path, damage):
    data = parquet([ROW | {"number": str(i) * 20} for i in range(500)], compression="snappy", use_dictionary=False)
    dataset("good.jsonl", LINE * 3)
    message = refusal(dataset("bad.parquet", damage(data), source=tmp_path / "*.*"))
    assert "bad.parquet: no readable Parquet" in message
    assert "The other files hold 3 readable examples" in message


def test_a_column_of_raw_bytes_is_refused_and_nothing_is_unpickled(dataset):
    table = pa.table({"prompt": ["a"], "completion": ["b"], "extra": [pickle.dumps(Bomb())]})
    assert "extra holds raw bytes" in refusal(dataset("a.parquet", parquet(table=table)))
    nested = pa.table({"prompt": ["a"], "completion": ["b"], "deep": [[{"x": b"1"}]]})
    assert "deep holds raw bytes" in refusal(dataset("a.parquet", parquet(table=nested)))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("name", ["a.pkl", "a.zip", "a.tar", "a", "a.parquet.gz"])
def test_other_kinds_of_file_are_refused(dataset, name):
    assert " read" in (message := refusal(dataset(name, pickle.dumps(ROW)))) or "unpack the .gz" in message


def test_gzip_is_unpacked(dataset):
    assert texts(read_examples(dataset("a.jsonl.gz", gzip.compress(LINE.encode())))) == [tuple(ROW.values())]


def test_a_damaged_gzip_is_refused_by_name(dataset):
    assert "a.jsonl.gz: the gzip is damaged" in refusal(dataset("a.jsonl.gz", gzip.compress(LINE.encode() * 99)[:-9]))


def test_a_gzip_bomb_is_stopped_at_the_cap(dataset, monkeypatch):
    monkeypatch.setattr(formats, "FREE_BYTES", 2**20)
    data = gzip.compress(LINE.encode() + (json.dumps({"prompt": " " * 2**21, "completion": "a"}) + "\n").encode())
    message = refusal(dataset("a.jsonl.gz", data))
    assert "a.jsonl.gz" in message and "100:1" in message


def test_a_parquet_bomb_is_stopped_at_the_cap(dataset, monkeypatch):
    monkeypatch.setattr(formats, "FREE_BYTES", 2**20)
    rows = [{"prompt": "a" * 10_000, "completion": str(i)} for i in range(500)]
    data = parquet(rows, compression="zstd", use_dictionary=False)
    assert len(data) * 100 < 500 * 10_000
    assert "100:1" in refusal(dataset("a.parquet", data))


def test_parquet_that_grows_by_its_dictionary_is_stopped_while_it_is_read(dataset, monkeypatch):
    monkeypatch.setattr(formats, "FREE_BYTES", 2**20)
    rows = [{"prompt": "a" * 10_000, "completion": str(i)} for i in range(2000)]
    assert "100:1" in refusal(dataset("a.parquet", parquet(rows)))


def test_parquet_of_more_rows_than_its_bytes_can_mean_is_refused(dataset):
    rows = 1_000_001
    table = pa.table({"prompt": pa.array(["a"]).take(pa.array([0] * rows)), "completion": pa.nulls(rows, pa.string())})
    data = parquet(table=table)
    assert len(data) * formats.CAP_ROWS_PER_BYTE < rows
    assert re.search(rf"a\.parquet: 1,000,001 rows in {len(data):,} bytes", refusal(dataset("a.parquet", data)))
