"""Preference pairs as tokens and as bins."""

import json

import pytest

from cluster.errors import UserError
from pipelines.recipe import Train
from pipelines.training.pairs import encode_pairs
from pipelines.training.stored_bins import bins_key
from tests.pipelines.training.conftest import build_bins, preferences


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from pipelines.models.load import load_tokenizer

    return load_tokenizer(tiny_model)


def settings(**values):
    return Train.model_validate({"objective": "dpo", "max_length": 128} | values)


def pair(chosen, rejected, prompt="Which?"):
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": chosen}]
    return "pair", json.dumps(turns), json.dumps(rejected)


def said(tokenizer, encoded):
    return tokenizer.decode([t for t, wanted in zip(encoded.tokens, encoded.supervised, strict=True) if wanted])


def test_both_answers_are_taught_after_the_same_prompt(tokenizer):
    [(_, (chosen, rejected))], figures = encode_pairs(tokenizer, [pair("the map", "a list")], settings())

    assert said(tokenizer, chosen) == "the map<|im_end|>"
    assert said(tokenizer, rejected) == "a list<|im_end|>"
    assert chosen.tokens[: chosen.supervised.index(True)] == rejected.tokens[: rejected.supervised.index(True)]
    assert (figures.kept, figures.unended) == (1, 0)


def test_earlier_answers_of_a_conversation_are_prompt(tokenizer):
    turns = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "a tree"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "a graph"},
    ]
    [(_, texts)], _ = encode_pairs(tokenizer, [("long", json.dumps(turns), json.dumps("a line"))], settings())

    assert [said(tokenizer, text) for text in texts] == ["a graph<|im_end|>", "a line<|im_end|>"]


def test_the_texts_of_a_pair_lie_side_by_side_in_one_bin(tokenizer):
    table, figures, shown = build_bins(tokenizer, preferences(40), settings(max_length=256))

    rows = table.to_pylist()
    assert 1 < len(rows) < 40
    assert sum(len(row["ids"]) for row in rows) == figures.kept == 40
    for row in rows:
        assert len(row["lengths"]) == 2 * len(row["ids"])
        assert sum(row["lengths"]) == len(row["tokens"]) <= 256
    assert sum(row["taught"] for row in rows) == figures.supervised_tokens
    assert len(shown["supervised_text"].split("<|im_end|>\n")) == 2


def test_a_pair_counts_with_both_its_texts_towards_the_longest(tokenizer):
    row = pair("short", "very " * 30)
    _, dropped = encode_pairs(tokenizer, [row], settings(max_length=48))
    [(_, texts)], cut = encode_pairs(tokenizer, [row], settings(max_length=48, on_overlong="truncate"))

    assert (dropped.dropped, dropped.kept) == (1, 0)
    assert sum(len(text.tokens) for text in texts) == 48
    assert said(tokenizer, texts[0]) == "short<|im_end|>"
    assert (cut.truncated, cut.unended) == (1, 1)
    with pytest.raises(UserError, match="The pair pair has"):
        encode_pairs(tokenizer, [row], settings(max_length=48, on_overlong="raise"))


def test_answers_that_become_the_same_teach_nothing_and_are_counted(tokenizer):
    kept, figures = encode_pairs(tokenizer, [pair("<|im_end|> yes", "<\u2060|im_end|> yes")], settings())

    assert kept == []
    assert figures.samples["untaught"] == ["pair"]


def test_bins_of_pairs_are_others_than_those_of_the_chosen_answers():
    assert bins_key("s", "b", settings()) != bins_key("s", "b", settings(objective="sft"))
    assert bins_key("s", "b", settings()) == bins_key("s", "b", settings(objective="orpo", beta=0.5))
