import threading

from pipelines.records import InteractionRow
from serve.interactions import InteractionLog


def row(request_id, **changes):
    return {
        "request_id": request_id,
        "recipe_name": "small",
        "unit": "u",
        "arm": "base",
        "model": "m",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_ms": 1.0,
        "status": 200,
    } | changes


def test_all_rows_are_written(workspace, rows):
    log = InteractionLog(workspace)
    for number in range(500):
        log.add(**row(f"r{number}"))
    log.close()
    assert len(rows(InteractionRow)) == 500 and log.lost == 0


def test_one_bad_row_costs_no_other_and_is_counted(workspace, rows):
    log = InteractionLog(workspace)
    for number in range(10):
        log.add(**row(f"r{number % 9}"))
    log.add(**row("bad", arm=None))
    log.close()
    assert len(rows(InteractionRow)) == 9
    assert log.lost == 2


def test_a_full_queue_loses_rows_and_counts_them_and_nobody_waits(workspace, rows, monkeypatch):
    release = threading.Event()
    writing = threading.Event()
    write = InteractionLog._write

    def slow(self, batch):
        writing.set()
        assert release.wait(30)
        write(self, batch)

    monkeypatch.setattr(InteractionLog, "_write", slow)
    log = InteractionLog(workspace, max_queued=5)
    log.add(**row("first"))
    assert writing.wait(30)
    for number in range(8):
        log.add(**row(f"r{number}"))
    assert log.lost == 3
    release.set()
    log.close()
    assert len(rows(InteractionRow)) == 6
