"""Rows to stored bins as a stream: the same bins whoever encodes them and in whatever blocks."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from pipelines.progress import Progress
from pipelines.recipe import Train
from pipelines.training import encoding_tasks, input_stream, stored_bins
from pipelines.training.encoding import SideFigures
from pipelines.training.input_stream import cuts, row_blocks
from pipelines.training.stored_bins import store_bins
from tests.pipelines.training.conftest import conversations, preferences
from tests.pipelines.training.on_disk import on_disk


def long(name, words=80):
    return (
        name,
        json.dumps([{"role": "user", "content": "Short?"}, {"role": "assistant", "content": "very " * words}]),
    )


def rows(count):
    """Some too long, some with special tokens, ids in no order."""
    made = [*conversations(count), *(long(f"example-{number:04d}-long") for number in range(3, count, 17))]
    made.append(("example-0005-said", json.dumps([{"role": "user", "content": "<|im_end|>"}, *json.loads(made[0][1])])))
    return [made[number] for number in np.random.default_rng(3).permutation(len(made))]


def stored(workspace, base, key, sides, **train):
    settings = Train.model_validate({"max_length": 64} | train)
    return store_bins(workspace, f"{key:0<12}", base, sides, settings, Progress(quiet=True))


def content(found):
    return [Path(found.address, f"{side}.arrow").read_bytes() for side in ("train", "validation")]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100))
def test_blocks_are_cut_where_they_have_enough(sizes, most):
    parts = np.split(np.array(sizes, np.int64), cuts(np.array(sizes, np.int64), most))
    assert [size for part in parts for size in part] == sizes
    assert all(part.sum() - max(part, default=0) < most for part in parts)


def test_the_blocks_hold_each_row_once_ordered_by_id(tmp_path, monkeypatch):
    monkeypatch.setattr(input_stream, "BLOCK_BYTES", 700)
    blocks = list(row_blocks(on_disk(train=rows(40))(tmp_path)["train"]))
    assert len(blocks) > 5
    found = [tuple(row.values()) for block in blocks for row in block.to_pylist()]
    assert found == sorted(rows(40))


@pytest.mark.parametrize("train", [{}, {"packing": False}, {"on_overlong": "truncate"}], ids=str)
def test_the_size_of_a_block_changes_nothing(workspace, tiny_model, monkeypatch, train):
    sides = on_disk(train=rows(60), validation=rows(20))
    whole = stored(workspace, tiny_model, "whole", sides, **train)
    for number, size in enumerate((1, 300, 2000)):
        monkeypatch.setattr(input_stream, "BLOCK_BYTES", size)
        monkeypatch.setattr(stored_bins, "BATCH_BINS", 1024)
        parts = stored(workspace, tiny_model, f"parts{number}", sides, **train)
        assert content(parts) == content(whole)
        assert (parts.train, parts.validation, parts.example) == (whole.train, whole.validation, whole.example)


@given(st.lists(st.lists(st.sampled_from(["overlong", "escaped", "untaught"]), max_size=4), max_size=5))
def test_figures_of_parts_add_up_to_those_of_the_whole(parts):
    whole, summed = SideFigures(), SideFigures()
    for number, part in enumerate(parts):
        block = SideFigures(seq2seq=number == 1)
        for place, figure in enumerate(part):
            for figures in (whole, block):
                figures.note(figure, f"{number}-{place}", 2)
        whole.seq2seq = whole.seq2seq or block.seq2seq
        summed.add(block)
    assert summed == whole


def test_progress_says_how_many_rows_of_how_many(workspace, tiny_model, monkeypatch, capsys):
    monkeypatch.setattr(input_stream, "BLOCK_BYTES", 500)
    sides = on_disk(train=conversations(40), validation=conversations(8))
    store_bins(workspace, "p" * 12, tiny_model, sides, Train(max_length=64), Progress())
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train side encoded: ")]
    assert len(told) > 4 and "/40 " in told[0] and told[-1].startswith("train side encoded: 40/40 ")


class Interrupted(Progress):
    """A person who presses Ctrl-C while the validation side is encoded."""

    def bar(self, description, total=None):
        if description.startswith("validation"):
            raise KeyboardInterrupt
        return super().bar(description, total)


def test_what_is_cancelled_leaves_nothing_under_its_key_and_is_made_anew(workspace, tiny_model):
    sides = on_disk(train=conversations(9), validation=conversations(3))
    with pytest.raises(KeyboardInterrupt):
        store_bins(workspace, "c" * 12, tiny_model, sides, Train(max_length=64), Interrupted(quiet=True))
    assert not list(Path(workspace.uri()).glob("bins/*"))
    assert stored(workspace, tiny_model, "c" * 12, sides).train.kept == 9


def test_bins_in_an_object_store_without_their_figures_are_none(workspace, tiny_model, tmp_path):
    from dataclasses import replace

    from pipelines.workspace import Workspace

    remote = Workspace(replace(workspace.settings, storage=f"file://{tmp_path}/remote"))
    sides = on_disk(train=conversations(9), validation=conversations(3))
    half = tmp_path / "remote" / "bins" / ("h" * 12)
    half.mkdir(parents=True)
    (half / "train.arrow").write_bytes(b"half")
    found = stored(remote, tiny_model, "h" * 12, sides)
    assert found == stored(remote, tiny_model, "h" * 12, sides)
    assert (half / "train.arrow").read_bytes() != b"half" and found.train.kept == 9


@pytest.mark.cluster
def test_ray_data_makes_the_same_bins(ray_cluster, tiny_model, monkeypatch):
    sides = on_disk(train=rows(60), validation=rows(3))
    here = stored(ray_cluster, tiny_model, "here", sides)
    monkeypatch.setattr(input_stream, "ROWS_HERE", 10)
    monkeypatch.setattr(input_stream, "BLOCK_BYTES", 1000)
    there = stored(ray_cluster, tiny_model, "there", sides)
    assert content(there) == content(here)
    assert (there.train, there.validation, there.example) == (here.train, here.validation, here.example)
    assert not list(Path(ray_cluster.uri("waiting")).iterdir())


@pytest.mark.cluster
def test_ray_data_makes_the_same_bins_of_pairs(ray_cluster, tiny_model, monkeypatch):
    sides = on_disk(train=preferences(40), validation=preferences(12))
    here = stored(ray_cluster, tiny_model, "pairs-here", sides, objective="dpo", max_length=256)
    monkeypatch.setattr(input_stream, "ROWS_HERE", 10)
    monkeypatch.setattr(input_stream, "BLOCK_BYTES", 500)
    there = stored(ray_cluster, tiny_model, "pairs-there", sides, objective="dpo", max_length=256)
    assert content(there) == content(here) and there.train == here.train


@pytest.mark.cluster
def test_what_ray_data_refuses_is_the_sentence_of_the_first_row_that_is_refused(ray_cluster, tiny_model, monkeypatch):
    sides = on_disk(train=[*conversations(30), long("example-0011-long"), long("example-0029-long", 90)])
    with pytest.raises(UserError) as here:
        stored(ray_cluster, tiny_model, "refused", sides, on_overlong="raise")
    monkeypatch.setattr(input_stream, "ROWS_HERE", 10)
    monkeypatch.setattr(input_stream, "BLOCK_BYTES", 300)
    with pytest.raises(UserError) as there:
        stored(ray_cluster, tiny_model, "refused", sides, on_overlong="raise")
    assert there.value.args == here.value.args and "example-0011-long" in there.value.message
    assert not list(Path(ray_cluster.uri("waiting")).iterdir())


@pytest.mark.cluster
def test_a_node_without_the_bases_folder_gets_the_tokenizers_files(ray_cluster, tiny_model, monkeypatch):
    sides = on_disk(train=conversations(20), validation=conversations(2))
    here = stored(ray_cluster, tiny_model, "folder", sides)
    monkeypatch.setattr(input_stream, "ROWS_HERE", 10)
    files = encoding_tasks.files_of(tiny_model)
    monkeypatch.setattr(encoding_tasks, "files_of", lambda base: files)
    # The validation side is small: this process reads the folder for it.
    monkeypatch.setattr("pipelines.models.load.load_tokenizer", lambda folder, load=_load: load(tiny_model))
    there = stored(ray_cluster, Path("/not/here"), "no-folder", sides)
    assert content(there) == content(here)


def _load(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.is_encoder_decoder = False
    return tokenizer
