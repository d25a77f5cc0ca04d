import subprocess
import sys
import threading

import pytest

from pipelines.records import InteractionRow
from serve.hosting import Options
from serve.interactions import InteractionLog
from serve.turn import Turn


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


def test_rows_that_come_within_moments_share_a_transaction_and_the_end_does_not_wait_for_more(
    workspace, rows, monkeypatch
):
    monkeypatch.setattr("serve.interactions.GATHER_S", 600)
    written = []
    monkeypatch.setattr(InteractionLog, "_write", lambda self, rows: written.append(len(rows)))
    log = InteractionLog(workspace)
    for number in range(7):
        log.add(**row(f"r{number}"))
    log.close(10)
    assert sum(written) == 7 and len(written) <= 2 and log.lost == 0


def test_columns_that_some_rows_lack_cost_no_row(workspace, rows):
    log = InteractionLog(workspace)
    for number in range(20):
        log.add(**row(f"r{number}", experiment_id=number % 2 and 7, shadow_of=None if number % 3 else "other"))
        log.add(**row(f"s{number}", experiment_id=None, messages={"messages": []}, answer="Sorry, I cannot."))
    log.close()
    assert log.lost == 0
    found = {kept.request_id: kept for kept in rows(InteractionRow)}
    assert len(found) == 40 and all(kept.created_at for kept in found.values())
    assert found["r1"].experiment_id == 7 and found["r3"].shadow_of == "other" and found["r1"].shadow_of is None
    assert found["s0"].declined and not found["r0"].declined


def test_what_a_turn_tells_has_a_column(workspace):
    turn = Turn("r", "u", "base", "m", [], "messages", Options(1))
    assert turn.row(1.0).keys() | {"recipe_name", "declined"} <= set(InteractionRow.__table__.columns.keys())


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
