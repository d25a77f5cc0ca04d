"""Checkpoints are complete, or not there."""

from pathlib import Path

import pytest

from pipelines.training.checkpoints import CheckpointStore


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(str(tmp_path / "run"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files" / "state").mkdir(parents=True)
    (tmp_path / "files" / "state" / "weights.pt").write_bytes(bytes(range(200)))
    return tmp_path / "files"


def test_a_checkpoint_counts_when_every_worker_has_written_its_manifest(store, folder):
    store.save(4, folder, 0, 2)
    assert store.complete() == []
    store.save(4, folder, 1, 2)
    assert store.complete() == [4]


def test_a_missing_byte_is_noticed_and_what_is_set_aside_counts_no_more(store, folder, tmp_path):
    store.save(4, folder, 0, 1)
    store.save(8, folder, 0, 1)
    damaged = tmp_path / "run" / "step-00000008" / "state" / "weights.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])

    problem = store.verify(8, store.fetch(8, tmp_path))
    assert problem == "state/weights.pt has 199 bytes instead of 200"
    assert store.verify(4, store.fetch(4, tmp_path)) is None
    store.set_aside(8)
    assert (tmp_path / "run" / "damaged-00000008").is_dir()
    assert store.complete() == [4]


def test_a_changed_byte_is_noticed(store, folder, tmp_path):
    store.save(4, folder, 0, 1)
    path = tmp_path / "run" / "step-00000004" / "state" / "weights.pt"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])

    assert store.verify(4, store.fetch(4, tmp_path)) == "state/weights.pt has other content than was written"


def test_a_manifest_that_was_cut_off_does_not_count(store, folder, tmp_path):
    store.save(4, folder, 0, 1)
    manifest = tmp_path / "run" / "step-00000004" / "manifest-0.json"
    manifest.write_text(manifest.read_text()[:20])

    assert store.complete() == []


def test_a_worker_that_dies_while_writing_leaves_nothing_that_counts(store, folder, monkeypatch):
    from pipelines.training import checkpoints

    def die(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints.fs, "copy_files", die)
    with pytest.raises(OSError, match="no space"):
        store.save(4, folder, 0, 1)
    assert store.complete() == []


def test_only_the_wanted_are_kept(store, folder):
    for step in (2, 4, 6):
        store.save(step, folder, 0, 1)
    store.keep_only({4, 6})
    assert store.complete() == [4, 6]
    store.clear()
    assert store.complete() == []


def test_the_manifests_of_two_attempts_are_no_checkpoint_together(store, folder):
    store.save(4, folder, 0, 2, "first")
    store.save(4, folder, 1, 2, "second")
    assert store.complete() == []
    store.save(4, folder, 0, 2, "second")
    assert store.complete() == [4]


def test_what_was_left_half_done_goes_and_what_is_complete_stays(store, folder):
    store.save(4, folder, 0, 1)
    store.save(8, folder, 0, 2)
    (store.scratch(8, 1) / "file").write_bytes(b"x")
    store.discard_unfinished()
    assert store.complete() == [4]
    assert [path.name for path in Path(store.address).iterdir()] == ["step-00000004"]


def test_checkpoints_of_an_earlier_version_do_not_count_but_are_told(store, folder):
    assert not store.outdated()
    store.save(4, folder, 0, 1)
    manifest = Path(store.address, "step-00000004", "manifest-0.json")
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1'))
    assert store.outdated()
    assert store.complete() == []


def test_several_workers_look_at_the_files_together(store, folder):
    store.save(4, folder, 0, 1)
    (folder / "state" / "more.pt").write_bytes(b"y" * 10)
    store.save(4, folder, 0, 1)
    place = store.fetch(4, Path())
    (place / "state" / "weights.pt").write_bytes(b"")
    found = [store.verify(4, place, part, 2) for part in range(2)]
    assert sorted(map(str, found)) == ["None", "state/weights.pt has 0 bytes instead of 200"]
