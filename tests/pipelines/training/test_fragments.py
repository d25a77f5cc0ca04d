"""Pieces of tensors in files, put together anew."""

import pytest
import torch
from safetensors.torch import load_file

from pipelines.training.fragments import Fragment, FragmentFiles, write_fragments


def test_any_cut_is_read_from_any_other_cut(tmp_path):
    whole = torch.arange(100, dtype=torch.float32)
    for number, (start, end) in enumerate(((0, 30), (30, 31), (31, 100))):
        write_fragments(tmp_path / f"{number}.safetensors", [Fragment("weight", "a/b.c", start, whole[start:end])])
    files = FragmentFiles(tmp_path.iterdir())

    for start, end in ((0, 100), (29, 32), (99, 100), (10, 10)):
        piece = torch.zeros(end - start)
        assert files.read("weight", "a/b.c", start, piece)
        assert torch.equal(piece, whole[start:end])


def test_a_gap_is_noticed(tmp_path):
    write_fragments(tmp_path / "x", [Fragment("weight", "a", 0, torch.zeros(4))])
    assert not FragmentFiles([tmp_path / "x"]).read("weight", "a", 2, torch.zeros(4))
    assert not FragmentFiles([tmp_path / "x"]).read("weight", "b", 0, torch.zeros(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_the_files_are_safetensors_that_others_read(tmp_path, dtype):
    values = torch.tensor([1, 2, 3]).to(dtype)
    write_fragments(tmp_path / "x.safetensors", [Fragment("weight", "a", 5, values), Fragment("step", "a", 0, values)])

    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == {"weight/5/a", "step/0/a"}
    assert torch.equal(read["weight/5/a"], values) and read["weight/5/a"].dtype == dtype
