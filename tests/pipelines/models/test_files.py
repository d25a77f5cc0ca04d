"""A base model's folder: trusted only when whole."""

import json

import pytest

from cluster.errors import UserError
from pipelines.models.files import check_safetensors, check_weights, content_fingerprint, remembered_fingerprint


@pytest.fixture
def folder(tmp_path):
    import numpy
    from safetensors.numpy import save_file

    target = tmp_path / "model"
    target.mkdir()
    save_file({"weight": numpy.zeros((4, 4), dtype=numpy.float32)}, target / "model.safetensors")
    (target / "config.json").write_text("{}")
    return target


def test_whole_weights_pass(folder):
    check_weights(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"only pickled weights \(pytorch_model.bin\)"):
        check_weights(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        check_weights(tmp_path)


def test_a_header_longer_than_the_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(UserError, match="its header says 1099511627776 bytes"):
        check_safetensors(path)


def test_a_file_that_was_cut_off_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="promises 64 bytes of weights, and 63 are there"):
        check_weights(folder)


@pytest.mark.parametrize("header", [b"not JSON!", b"[1, 2]   ", b'{"a": 1} '])
def test_a_header_that_is_none_is_refused(folder, header):
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="no safetensors header"):
        check_safetensors(path)


def test_an_empty_file_is_refused(folder):
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="the file has 0"):
        check_weights(folder)


def test_missing_shards_are_named(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-00002\.safetensors"):
        check_weights(folder)


def test_the_fingerprint_is_that_of_the_content_and_not_of_our_note(folder, tmp_path):
    before = content_fingerprint(folder)
    (folder / "sluice.json").write_text("{}")
    assert content_fingerprint(folder) == before
    (folder / "config.json").write_text('{"a": 1}')
    assert content_fingerprint(folder) != before


def test_a_remembered_fingerprint_notices_a_change(folder, tmp_path):
    memory = tmp_path / "memory.json"
    before = remembered_fingerprint(folder, memory)
    assert remembered_fingerprint(folder, memory) == before == content_fingerprint(folder)
    (folder / "config.json").write_text('{"a": 1}')
    assert remembered_fingerprint(folder, memory) == content_fingerprint(folder) != before
