"""Calls of tools: the schema of one, and finding them in what a model writes, in whatever pieces it comes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.schema import check_schema
from serve.call_schema import call_schema
from serve.calls import Call, CallReader
from serve.replies import ChatShape

SEARCH = {"name": "search", "parameters": {"type": "object", "properties": {"for": {"type": "string"}}}}
TREE = {
    "name": "plant",
    "parameters": {
        "type": "object",
        "properties": {"kind": {"$ref": "#/$defs/kind"}, "beside": {"$ref": "#"}},
        "required": ["kind"],
        "additionalProperties": False,
        "$defs": {"kind": {"enum": ["oak", "elm"]}},
    },
}


def call(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


def read(text, *, forced=False, size=None):
    """What a reader finds in a text that comes in pieces of `size`; texts beside each other are one."""
    reader, parts = CallReader({"search", "plant"}, forced=forced), []
    pieces = [text[place : place + (size or len(text))] for place in range(0, len(text), size or max(1, len(text)))]
    for number, piece in enumerate(pieces or [""]):
        for part in reader.read(piece, last=number == max(0, len(pieces) - 1)):
            if parts and isinstance(part, str) and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
    assert reader.calls == [part for part in parts if isinstance(part, Call)]
    return parts


def follows(schema, instance):
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema).is_valid(instance)


def test_a_calls_schema_holds_the_parameters_wherever_they_refer_to():
    schema = call_schema([SEARCH, TREE])
    check_schema(json.dumps(schema))
    assert follows(schema, {"name": "search", "arguments": {"for": "oaks"}})
    assert follows(schema, {"name": "plant", "arguments": {"kind": "oak", "beside": {"kind": "elm"}}})
    assert not follows(schema, {"name": "plant", "arguments": {"kind": "ash"}})
    assert not follows(schema, {"name": "plant", "arguments": {"kind": "oak", "beside": {"name": "plant"}}})
    assert not follows(schema, {"name": "search", "arguments": {"for": 1}})
    assert not follows(schema, {"name": "other", "arguments": {}})
    assert not follows(schema, {"name": "search"})


def test_a_function_without_parameters_takes_none():
    schema = call_schema([{"name": "stop"}])
    check_schema(json.dumps(schema))
    assert follows(schema, {"name": "stop", "arguments": {}})
    assert not follows(schema, {"name": "stop", "arguments": {"now": True}})


@pytest.mark.parametrize("size", [None, 1, 2, 7, 11, 23])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No call.", ["No call."]),
        (f"<tool_call>{call('search', n=1)}</tool_call>", [Call("search", '{"n": 1}')]),
        (
            f"Wait.<tool_call>\n{call('search')}\n</tool_call>\n<tool_call>{call('plant')}</tool_call>!",
            ["Wait.", Call("search", "{}"), Call("plant", "{}"), "!"],
        ),
        # The model ended its answer without closing the call.
        (f"<tool_call>{call('search')}", [Call("search", "{}")]),
        ("<tool_call>nothing</tool_call> <tool_", ["<tool_call>nothing</tool_call> <tool_"]),
        (f"<tool_call>{call('unknown')}</tool_call>", [f"<tool_call>{call('unknown')}</tool_call>"]),
        ('<tool_call>{"name": "search", "arguments": [1]}</tool_call>', None),
        ('<tool_call>{"name": ["search"]}</tool_call>', None),
        ("<tool_call>" + "[" * 5000, None),
        ('<tool_call>{"name": "search", "arguments": {"n": NaN}}</tool_call>', None),
        ('<tool_call>{"name": "search", "arguments": {"n": 1e999}}</tool_call>', None),
        ('<tool_call>{"name": "search", "arguments": {"n": "\\ud83d"}}</tool_call>', None),
    ],
)
def test_calls_are_found_and_what_is_none_stays_text(text, found, size):
    assert read(text, size=size) == ([text] if found is None else found)


@pytest.mark.parametrize("size", [None, 1, 3, 40])
def test_a_stream_of_calls_says_what_the_whole_answer_does(size):
    text = f" \nBoth. \n<tool_call>{call('search', n=1)}</tool_call>\n<tool_call>{call('plant')}</tool_call>\n Then. "
    shapes = [ChatShape(CallReader(["search", "plant"], forced=False)) for _ in range(2)]
    message = shapes[0].answer(text)["message"]
    assert message["content"] == " \nBoth.Then. " and [one["type"] for one in message["tool_calls"]] == 2 * ["function"]
    pieces = [text[place : place + (size or len(text))] for place in range(0, len(text), size or len(text))]
    deltas = [
        delta["delta"]
        for number, piece in enumerate(pieces)
        for delta in shapes[1].pieces(piece, last=number == len(pieces) - 1)
    ]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    calls = [one for delta in deltas for one in delta.get("tool_calls", [])]
    assert [one["index"] for one in calls] == [0, 1]
    assert [one["function"] for one in calls] == [one["function"] for one in message["tool_calls"]]
    assert [shape.finish_reason("stop") for shape in shapes] == 2 * ["tool_calls"]
    assert shapes[0].finish_reason("length") == "length"


def test_an_answer_without_a_call_ends_as_any_other():
    shape = ChatShape(CallReader(["search"], forced=False))
    assert shape.pieces("Hello <to", last=False) == [{"delta": {"content": "Hello"}}]
    assert shape.pieces("ol", last=False) == []
    assert shape.pieces("", last=True) == [{"delta": {"content": " <tool"}}]
    assert shape.pieces("", last=True) == [{"delta": {}}] and shape.finish_reason("stop") == "stop"


@given(st.text(alphabet="<tool_cal>/{}x", max_size=60), st.integers(1, 9))
def test_no_character_is_lost_or_doubled_where_nothing_is_called(text, size):
    assert "".join(read(text, size=size)) == text


@pytest.mark.parametrize("size", [None, 1, 5])
def test_an_answer_that_is_forced_is_a_call_or_was_cut_off(size):
    assert read(call("search", a="é"), forced=True, size=size) == [Call("search", '{"a": "é"}')]
    assert read(call("search", a=1)[:-3], forced=True, size=size) == [call("search", a=1)[:-3]]
