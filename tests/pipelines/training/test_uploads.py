"""Checkpoints on their way while training goes on."""

import threading
from pathlib import Path

import pytest

from pipelines.training import uploads as uploads_module
from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.uploads import Uploads


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(str(tmp_path / "run"))


@pytest.fixture
def heard():
    return []


@pytest.fixture
def uploads(store, heard, monkeypatch):
    """`uploads(rank, world)` -> one worker's."""
    monkeypatch.setattr(uploads_module, "PAUSE_S", 0.01)
    return lambda rank=0, world=1: Uploads(
        store, rank, world, "attempt", lambda kind, **values: heard.append((kind, values["step"]))
    )


def some_files(folder):
    (folder / f"state-{len(list(folder.iterdir()))}").write_bytes(b"weights")


def test_saving_goes_on_in_the_background_one_at_a_time(store, uploads, monkeypatch):
    may_go, saving = threading.Event(), []
    save = CheckpointStore.save

    def slow(self, step, *rest):
        saving.append(step)
        may_go.wait(10)
        save(self, step, *rest)

    monkeypatch.setattr(CheckpointStore, "save", slow)
    one = uploads()
    one.write(1, 1, some_files)
    assert store.complete() == []
    second = threading.Thread(target=one.write, args=(2, 2, some_files))
    second.start()
    second.join(0.2)
    assert second.is_alive() and saving == [1]
    may_go.set()
    second.join()
    assert one.drain() is None
    assert store.complete() == [1, 2]


def test_older_ones_go_only_when_every_worker_has_kept_the_new_one(store, uploads, heard):
    first, second = uploads(0, 2), uploads(1, 2)
    for step in (1, 2, 3):
        first.write(step, 1, some_files)
        second.write(step, 1, some_files)
    first.write(4, 1, some_files)
    first.drain()
    first.settle()
    assert store.complete() == [1, 2, 3]
    second.write(4, 1, some_files)
    second.drain()
    first.settle()
    assert store.complete() == [1, 3, 4]
    assert heard[-1] == ("checkpoint", 4)


def failing(monkeypatch, steps, times=1):
    """Saving fails so often for each of these steps."""
    save, left = CheckpointStore.save, dict.fromkeys(steps, times)

    def sometimes(self, step, *rest):
        if left.get(step, 0):
            left[step] -= 1
            raise OSError("no route to host")
        save(self, step, *rest)

    monkeypatch.setattr(CheckpointStore, "save", sometimes)


def test_what_fails_is_told_and_the_next_one_stands(store, uploads, heard, monkeypatch):
    failing(monkeypatch, [1])
    one = uploads()
    one.write(1, 0, some_files)
    one.write(2, 0, some_files)
    assert one.drain() is None
    assert heard[0] == ("not_kept", 1)
    assert store.complete() == [2]
    assert not list(Path(store.address, "unfinished").iterdir())


def test_what_fails_and_holds_the_best_weights_is_tried_again(store, uploads, monkeypatch):
    failing(monkeypatch, [2])
    one = uploads()
    for step in (1, 2, 3):
        one.write(step, min(step, 2), some_files)
    assert one.drain() is None
    one.settle()
    assert store.complete() == [2, 3]


def test_the_last_one_is_tried_again_before_the_run_ends(store, uploads, monkeypatch):
    failing(monkeypatch, [5], times=3)
    one = uploads()
    one.write(5, 5, some_files)
    assert one.drain() is None
    assert store.complete() == [5]


def test_what_cannot_be_kept_is_said_at_the_end(store, uploads, monkeypatch):
    failing(monkeypatch, [5], times=100)
    one = uploads()
    one.write(5, 5, some_files)
    assert one.drain() == "OSError: no route to host"


def test_a_full_disk_does_not_end_training(store, uploads, heard):
    def full(folder):
        raise OSError("no space left on device")

    one = uploads()
    one.write(1, 0, full)
    one.write(2, 0, some_files)
    assert one.drain() is None
    assert heard[0] == ("not_kept", 1)
    assert store.complete() == [2]
