import subprocess
import sys
import threading

import pytest

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


def test_closing_writes_what_waits_and_a_row_that_comes_later_is_counted(workspace, rows):
    log = InteractionLog(workspace)
    log.add(**row("in time"))
    log.close()
    log.close()
    log.add(**row("late"))
    assert [found.request_id for found in rows(InteractionRow)] == ["in time"]
    assert log.lost == 1


@pytest.mark.parametrize("max_queued", [3, 100])
def test_a_database_that_hangs_does_not_hold_up_the_end_and_what_waited_is_counted(
    workspace, rows, monkeypatch, max_queued
):
    release, writing = threading.Event(), threading.Event()
    write = InteractionLog._write

    def hang(self, batch):
        writing.set()
        assert release.wait(30)
        write(self, batch)

    monkeypatch.setattr(InteractionLog, "_write", hang)
    log = InteractionLog(workspace, max_queued=max_queued)
    log.add(**row("first"))
    assert writing.wait(30)
    for number in range(3):
        log.add(**row(f"r{number}"))
    log.close(timeout_s=0.2)
    assert log.lost == 3
    release.set()
    log._thread.join(30)
    assert not log._thread.is_alive()
    assert [found.request_id for found in rows(InteractionRow)] == ["first"]


@pytest.mark.slow
def test_a_process_that_ends_writes_what_waits(workspace, rows):
    program = f"""
from pipelines.workspace import Workspace
from serve.interactions import InteractionLog

log = InteractionLog(Workspace())
for number in range(300):
    log.add(**({row("r")!r} | {{"request_id": str(number)}}))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert len(rows(InteractionRow)) == 300


def test_the_end_of_the_gateways_replica_writes_what_waits(workspace, service_of, rows):
    from serve.app import Gateway

    gateway = object.__new__(Gateway)
    gateway.__del__()  # As after an __init__ that failed.
    gateway._service = service_of()
    gateway._service.log.add(**row("last"))
    gateway.__del__()
    assert [found.request_id for found in rows(InteractionRow)] == ["last"]
