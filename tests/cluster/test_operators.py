"""DeepSpeed's compiled operators: found, not found, and a build that died."""

import os
import time

import pytest

from cluster import operators
from cluster.errors import UserError


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return tmp_path / operators.OPERATOR


def test_where_nothing_was_built_nothing_is_found(empty_folder):
    assert operators.operator_folder() == empty_folder
    assert not operators.built()


def test_a_library_that_does_not_load_counts_as_not_built(empty_folder):
    empty_folder.mkdir()
    (empty_folder / f"{operators.OPERATOR}.so").write_bytes(b"no library")
    assert not operators.built()


def test_a_lock_is_cleared_only_when_its_build_has_surely_died(empty_folder):
    assert not operators.clear_stale_lock(empty_folder, time.time())
    empty_folder.mkdir()
    lock = empty_folder / "lock"
    lock.touch()
    assert not operators.clear_stale_lock(empty_folder, time.time()) and lock.exists()
    old = time.time() - operators.STALE_LOCK_S - 1
    os.utime(lock, (old, old))
    assert operators.clear_stale_lock(empty_folder, time.time()) and not lock.exists()


@pytest.mark.cluster
def test_the_operator_of_this_environment_is_built_and_loads():
    operators.build()
    assert operators.built()


@pytest.mark.cluster
def test_a_machine_without_libaio_is_told_what_to_install(monkeypatch):
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda builder, verbose: False)
    with pytest.raises(UserError, match="needs the library libaio") as refused:
        operators.load_disk_operators()
    assert "libaio-dev" in refused.value.remedy
