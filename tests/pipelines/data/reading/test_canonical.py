"""Rows of every format, right and wrong."""

import json

import pytest

from cluster.errors import UserError
from pipelines.data.example import conversation_id
from tests.pipelines.data.rows_read import read_examples

USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}


def only(reading):
    (example,) = reading.examples
    assert reading.bad == []
    return example


@pytest.mark.parametrize(
    "row,turns",
    [
        ({"messages": [USER, ASSISTANT]}, [USER, ASSISTANT]),
        ({"messages": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]}, [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]),
        ({"messages": json.dumps([USER, ASSISTANT])}, [USER, ASSISTANT]),
        ({"messages": [USER | {"content": [{"type": "text", "text": "a"}]}, ASSISTANT]}, [USER, ASSISTANT]),
        ({"prompt": "a", "completion": "b"}, [USER, ASSISTANT]),
        ({"prompt": "a", "completion": "b", "system": "s"}, [SYSTEM, USER, ASSISTANT]),
        ({"prompt": [USER], "completion": [ASSISTANT]}, [USER, ASSISTANT]),
        ({"instruction": "a", "output": "b"}, [USER, ASSISTANT]),
        ({"instruction": "a", "input": "", "output": "b"}, [USER, ASSISTANT]),
        ({"instruction": "a", "input": "x", "output": "b"}, [USER | {"content": "a\n\nx"}, ASSISTANT]),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            [SYSTEM, USER, ASSISTANT],
        ),
        ({"conversations": [USER, ASSISTANT]}, [USER, ASSISTANT]),
    ],
)
def test_the_format_is_known_by_the_columns(dataset, row, turns):
    example = only(read_examples(dataset("a.jsonl", [row])))
    assert example.turns == turns
    assert example.id == conversation_id(turns)


@pytest.mark.parametrize(
    "row,kind,reason",
    [
        ({"messages": [USER]}, "roles", "no assistant turn"),
        ({"messages": [ASSISTANT, USER]}, "roles", "assistant's where user's is due"),
        ({"messages": [USER, USER, ASSISTANT]}, "roles", "user's where assistant's is due"),
        ({"messages": [USER, SYSTEM, ASSISTANT]}, "roles", "system turn stands after the first"),
        ({"messages": [USER, {"role": "tool", "content": "x"}, ASSISTANT]}, "roles", "'tool'"),
        ({"messages": [USER, ASSISTANT | {"tool_calls": [{"id": 1}]}]}, "roles", "calls a tool"),
        ({"messages": [{"content": "a"}, ASSISTANT]}, "roles", "names no role"),
        ({"messages": [USER, ASSISTANT | {"content": " \n"}]}, "empty", "turn 2 (assistant) is empty"),
        ({"messages": [USER, ASSISTANT | {"content": None}]}, "empty", "is empty"),
        ({"messages": []}, "empty", "messages is empty"),
        ({"messages": 5}, "type", "messages is a number"),
        ({"messages": ["a"]}, "type", "turn 1 of messages is a text"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}, ASSISTANT]}, "type", "is a list"),
    ],
)
def test_a_conversation_that_teaches_nothing_is_quarantined(dataset, row, kind, reason):
    reading = read_examples(dataset("a.jsonl", [{"messages": [USER, ASSISTANT]}, row]))
    (bad,) = reading.bad
    assert (bad.position, bad.kind) == (2, kind)
    assert reason in bad.reason
    assert len(reading.examples) == 1


@pytest.mark.parametrize(
    "row,kind,reason",
    [
        ({"prompt": "", "completion": "b"}, "empty", "prompt is empty"),
        ({"prompt": "a", "completion": "  "}, "empty", "completion is empty"),
        ({"prompt": "a", "completion": None}, "empty", "completion is empty"),
        ({"prompt": 5, "completion": "b"}, "type", "prompt is a number (5), not text"),
        ({"prompt": "a"}, "missing", "completion is missing; the row has prompt"),
    ],
)
def test_a_row_with_half_an_example_is_quarantined(dataset, row, kind, reason):
    reading = read_examples(dataset("a.jsonl", [{"prompt": "a", "completion": "b"}, row]))
    assert [(bad.kind, reason in bad.reason) for bad in reading.bad] == [(kind, True)]


def refusal(recipe):
    with pytest.raises(UserError) as caught:
        read_examples(recipe)
    return str(caught.value)


def test_renamed_columns_are_named_with_the_nearest(dataset):
    message = refusal(dataset("a.csv", "promt,completion\na,b\n"))
    assert "a.csv: the columns promt, completion hold no known conversation" in message
    assert "prompt is missing; did you mean promt?" in message and "dataset.columns" in message


def test_a_stated_format_names_the_columns_that_it_misses(dataset):
    message = refusal(dataset("a.jsonl", [{"prompt": "a", "completion": "b"}], format="alpaca"))
    assert "instruction is missing" in message and "output is missing" in message


def test_columns_are_mapped_by_name(dataset):
    recipe = dataset("a.csv", "question,answer,prompt\na,b,c\n", columns={"prompt": "question", "completion": "answer"})
    example = only(read_examples(recipe))
    assert example.turns == [USER, ASSISTANT]
    assert json.loads(example.meta)["columns"] == {"prompt (column)": "c"}


def test_a_mapped_or_grouping_column_that_is_not_there_is_named_with_the_nearest(dataset):
    rows = [{"question": "a", "completion": "b"}]
    assert "did you mean question?" in refusal(dataset("a.jsonl", rows, columns={"prompt": "questions"}))
    rows = [{"prompt": "a", "completion": "b", "module": "m"}]
    assert "did you mean module?" in refusal(dataset("a.jsonl", rows, group_by="modul"))


def test_a_mapping_to_a_name_that_sluice_does_not_have_is_refused_with_the_nearest(dataset):
    assert "did you mean prompt?" in refusal(dataset("a.jsonl", [{"x": "a"}], columns={"promt": "x"}))


def test_declared_provenance_fills_what_is_missing_and_is_recorded_as_declared(dataset):
    rows = [{"prompt": "a", "completion": "b", "annotator": "ann"}, {"prompt": "c", "completion": "d", "annotator": ""}]
    declared = {"annotator": "jane", "collector": "ops"}
    first, second = read_examples(dataset("a.jsonl", rows, provenance=declared)).examples
    assert (first.annotator, first.collector, first.source) == ("ann", "ops", "a.jsonl")
    assert json.loads(first.meta)["declared"] == ["collector"]
    assert second.annotator == "jane"
    assert json.loads(second.meta)["declared"] == ["collector", "annotator"]


def test_the_instruction_stands_before_the_first_prompt_and_makes_no_other_id(dataset):
    rows = [{"messages": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]}]
    plain = only(read_examples(dataset("a.jsonl", rows)))
    told = only(read_examples(dataset("a.jsonl", rows, instruction="Do it.")))
    assert [turn["content"] for turn in told.turns] == ["s", "Do it.\n\na", "b", "a", "b"]
    assert told.id == plain.id


def test_the_group_is_the_column_that_the_recipe_names_else_the_column_group(dataset):
    rows = [{"prompt": "a", "completion": "b", "group": "g", "module": 7}]
    assert only(read_examples(dataset("a.jsonl", rows))).group == "g"
    by_module = only(read_examples(dataset("a.jsonl", rows, group_by="module")))
    assert by_module.group == "7"


def test_other_columns_are_kept(dataset):
    example = only(read_examples(dataset("a.jsonl", [{"prompt": "a", "completion": "b", "score": 0.5, "tags": ["x"]}])))
    assert json.loads(example.meta)["columns"] == {"score": 0.5, "tags": ["x"]}


PAIR = {"prompt": "how many", "chosen": "two, exactly", "rejected": "many"}
ASKED = {"role": "user", "content": "how many"}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": [ASKED], "chosen": [said("two, exactly")], "rejected": [said("many")]},
        {"prompt": "how many", "chosen": [ASKED, said("two, exactly")], "rejected": [ASKED, said("many")]},
        {"chosen": [ASKED, said("two, exactly")], "rejected": [ASKED, said("many")]},
    ],
)
@pytest.mark.parametrize("form", ["auto", "preference"])
def test_a_preference_pair_is_the_chosen_conversation_and_the_rejected_answer(dataset, row, form):
    example = only(read_examples(dataset("a.jsonl", [row], format=form)))
    assert [turn["content"] for turn in example.turns] == ["how many", "two, exactly"]
    assert json.loads(example.rejected) == "many"
    assert example.id == conversation_id(example.turns, "many") != conversation_id(example.turns)


@pytest.mark.parametrize(
    "row,kind,reason",
    [
        (PAIR | {"rejected": "two, exactly "}, "equal", "the same answer"),
        (PAIR | {"rejected": ""}, "empty", "rejected is empty"),
        (PAIR | {"rejected": [said(" ")]}, "empty", "is empty"),
        (PAIR | {"rejected": [ASKED]}, "roles", "does not end with the assistant's answer"),
        (
            {"chosen": [ASKED, said("two")], "rejected": [{"role": "user", "content": "when"}, said("many")]},
            "roles",
            "answer different prompts",
        ),
        ({"chosen": "two", "rejected": "many"}, "roles", "assistant's where user's is due"),
    ],
)
def test_a_pair_that_teaches_no_preference_is_quarantined(dataset, row, kind, reason):
    reading = read_examples(dataset("a.jsonl", [PAIR, row]))
    assert len(reading.examples) == 1 and reading.bad[0].kind == kind
    assert reason in reading.bad[0].reason


def test_the_label_is_the_column_that_the_recipe_names_and_no_other(dataset):
    rows = [{"prompt": "a", "completion": "b", "label": ["no", "text"], "topic": "birds"}]
    plain = only(read_examples(dataset("a.jsonl", rows)))
    labelled = only(read_examples(dataset("a.jsonl", rows, label="topic")))
    assert (plain.label, labelled.label, plain.id) == (None, "birds", labelled.id)
    with pytest.raises(UserError, match="label names topics, which is not there; did you mean topic"):
        read_examples(dataset("a.jsonl", rows, label="topics"))
