"""Bins: encoded once, stored, read by number."""

import json

import pytest

from cluster.errors import UserError
from pipelines.progress import Progress
from pipelines.recipe import Train
from pipelines.training.bins import BinFile, micro_batches, padding_share, step_bins
from pipelines.training.encoding import encode_side
from pipelines.training.stored_bins import bins_key, store_bins
from tests.pipelines.training.conftest import build_bins, conversations
from tests.pipelines.training.on_disk import on_disk


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from pipelines.models.load import load_tokenizer

    return load_tokenizer(tiny_model)


def settings(**values):
    return Train.model_validate({"max_length": 64} | values)


LONG = ("long", json.dumps([{"role": "user", "content": "Short?"}, {"role": "assistant", "content": "very " * 80}]))
LONG_PROMPT = (
    "prompt",
    json.dumps([{"role": "user", "content": "very " * 80}, {"role": "assistant", "content": "No"}]),
)


def test_every_supervised_token_is_in_exactly_one_bin(tokenizer):
    rows = conversations(50)
    table, figures, _ = build_bins(tokenizer, rows, settings())

    assert sorted(name for ids in table["ids"].to_pylist() for name in ids) == [name for name, _ in rows]
    assert sum(table["taught"].to_pylist()) == figures.supervised_tokens
    assert sum(map(len, table["tokens"].to_pylist())) == figures.tokens
    assert max(map(len, table["tokens"].to_pylist())) <= 64
    assert figures.kept == figures.examples == 50


def test_without_packing_each_example_is_a_row(tokenizer):
    table, figures, _ = build_bins(tokenizer, conversations(50), settings(packing=False))
    assert figures.bins == 50
    assert all(len(ids) == 1 for ids in table["ids"].to_pylist())


def test_an_overlong_example_is_dropped_and_its_tokens_are_counted(tokenizer):
    kept, figures = encode_side(tokenizer, [*conversations(3), LONG], settings())

    assert [name for name, _ in kept] == ["example-0000", "example-0001", "example-0002"]
    assert (figures.overlong, figures.dropped, figures.truncated) == (1, 1, 0)
    assert figures.tokens_lost > 80
    assert figures.samples["dropped"] == ["long"]


def test_truncation_cuts_the_end_and_counts_what_is_lost(tokenizer):
    kept, figures = encode_side(tokenizer, [LONG], settings(on_overlong="truncate"))

    assert len(kept[0][1].tokens) == 64
    assert not kept[0][1].ends
    assert (figures.dropped, figures.truncated, figures.unended) == (0, 1, 1)
    assert figures.tokens + figures.tokens_lost > 80


def test_a_cut_that_leaves_nothing_to_learn_drops_the_example(tokenizer):
    kept, figures = encode_side(tokenizer, [LONG_PROMPT], settings(on_overlong="truncate"))

    assert kept == []
    assert (figures.dropped, figures.truncated, figures.untaught) == (1, 0, 0)


def test_an_overlong_example_is_an_error_when_the_recipe_says_so(tokenizer):
    with pytest.raises(UserError, match="Example long has"):
        encode_side(tokenizer, [LONG], settings(on_overlong="raise"))


def test_a_conversation_without_an_answer_teaches_nothing_and_is_counted(tokenizer):
    silent = ("silent", json.dumps([{"role": "user", "content": "Hello?"}]))
    kept, figures = encode_side(tokenizer, [silent, *conversations(1)], settings())

    assert len(kept) == 1
    assert figures.samples["untaught"] == ["silent"]


def test_the_shown_example_has_its_answer_between_marks(tokenizer):
    _, _, shown = build_bins(tokenizer, conversations(1), settings())
    assert shown["marked_text"].endswith(f"\u27e6{shown['supervised_text']}\u27e7\n")
    assert shown["supervised_text"].endswith("<|im_end|>")


def test_bins_are_encoded_once(workspace, tiny_model):
    asked = []

    def sides(folder):
        asked.append(1)
        return on_disk(train=conversations(9), validation=conversations(3, seed=1))(folder)

    def go():
        return store_bins(workspace, "k" * 64, tiny_model, sides, settings(), Progress(quiet=True))

    assert go() == go()
    assert asked == [1]
    file = BinFile(workspace.fetch(go().address) / "train.arrow")
    assert len(file) == go().train.bins
    assert sum(file.taught) == go().train.supervised_tokens
    assert [len(file.read(number).tokens) for number in range(len(file))] == file.sizes


def test_the_key_covers_the_inputs_and_no_more():
    key = bins_key("split", "base", settings())
    assert key == bins_key("split", "base", settings(learning_rate=1.0, num_train_epochs=9))
    assert key != bins_key("split", "base", settings(max_length=128))
    assert key != bins_key("other", "base", settings())
    assert key != bins_key("split", "other", settings())


@pytest.mark.parametrize(("world", "width"), [(1, 1), (1, 8), (2, 2), (4, 2), (8, 1)])
def test_the_workers_of_a_step_read_each_bin_once_and_run_equally_often(world, width):
    sizes = [10 + number % 7 for number in range(13)]
    numbers = step_bins(list(range(13)), sizes, 1, 8)
    parts = [list(micro_batches(numbers, rank, world, width)) for rank in range(world)]

    read = sorted(i for part in parts for micro in part for i in micro if i is not None)
    assert read == [8, 9, 10, 11, 12]
    assert {len(part) for part in parts} == {8 // (world * width)}


def test_the_share_of_padding_is_that_of_the_passes(workspace, tiny_model):
    sides = on_disk(train=conversations(33), validation=conversations(3))
    stored = store_bins(workspace, "p" * 64, tiny_model, sides, settings(packing=False), Progress(quiet=True))
    file = BinFile(workspace.fetch(stored.address) / "train.arrow")

    assert len(file) == 33
    assert padding_share(file, settings(global_batch_size=1), 0, 1) == 0.0
    # 31 places of 64 are filled, with two tokens each.
    share = padding_share(file, settings(global_batch_size=64), 0, 2)
    assert share == pytest.approx(62 / (sum(file.sizes) + 62))
