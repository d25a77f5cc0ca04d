"""Events from files: whole files or none, and again without harm."""

import json

import pytest

from cluster.errors import UserError
from pipelines.records import EventRow
from serve.event_files import import_events


@pytest.fixture
def file(tmp_path):
    def write(text, name="events.jsonl"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def lines(count):
    return "\n".join(
        json.dumps({"event_id": str(number), "name": "paid", "user": f"u{number}", "value": number})
        for number in range(count)
    )


def test_a_file_is_stored_and_the_second_time_known(file, workspace, rows):
    path = file(lines(2500) + "\n\n")
    assert import_events(workspace, "small", path).stored == 2500
    done = import_events(workspace, "small", file(lines(2501)))
    assert (done.stored, done.known) == (1, 2500)
    assert sum(row.value for row in rows(EventRow)) == sum(range(2501))


def test_csv_is_read_by_its_header(file, workspace, rows):
    text = '\ufeffevent_id,name,user,value,at\r\n1,paid,"Jane, of Kent",2.5,2026-01-02T03:04:05Z\r\n2,paid,bo,,\r\n'
    assert import_events(workspace, "small", file(text, "e.csv")).stored == 2
    assert [row.value for row in rows(EventRow)] == [2.5, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"event_id": "1"', r"1 of 1 rows.*line 1: no JSON"),
        ("a.jsonl", '{"event_id": "1", "name": "x", "user": "u"}\n[1]\n{"name": "y"}', r"2 of 3 rows.*line 2.*line 3"),
        ("a.csv", "event_id,name,user\n1,paid,bo,more\n", "a cell beyond the header"),
        ("a.csv", "event_id,name\n1,paid\n", "user or request_id"),
        ("a.jsonl", "\n \n", "holds no events"),
    ],
)
def test_a_file_with_problems_stores_nothing_and_names_them(file, workspace, rows, name, text, told):
    with pytest.raises(UserError, match=told):
        import_events(workspace, "small", file(text, name))
    assert rows(EventRow) == []


def test_files_that_are_no_text_or_not_there_are_named(tmp_path, workspace):
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    for name in ("b.jsonl", "none.jsonl"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            import_events(workspace, "small", tmp_path / name)
