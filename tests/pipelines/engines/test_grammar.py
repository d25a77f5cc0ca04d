"""Answers that follow a schema, from a model that knows nothing of JSON."""

import ipaddress
import json
import re
import threading

import pytest
from jsonschema import validate

from pipelines.engines.protocol import EngineFailed, GenerationRequest, SchemaRefused
from pipelines.engines.schema import check_schema
from pipelines.engines.transformers import TransformersEngine

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "sure": {"type": "boolean"},
    },
    "required": ["mood", "stars", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tiny_model, tiny_adapters):
    engine = TransformersEngine(tiny_model, tiny_adapters, "float32", max_batch_size=4)
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_an_untrained_model_says_is_json_beside_others_that_say_what_they_like(engine, temperature):
    prompt = tuple(engine.tokenizer("JSON is a format")["input_ids"])
    plain = GenerationRequest(prompt, "first", 20)
    alone = engine.generate([plain])[0]
    asked = [
        GenerationRequest(prompt, adapter, 200, temperature, seed=seed, json_schema=json.dumps(SCHEMA))
        for seed, adapter in enumerate((None, "first", "second"))
    ]
    *answers, beside = engine.generate([*asked, plain])
    for answer in answers:
        assert answer.finish_reason == "stop", answer
        validate(json.loads(answer.text), SCHEMA)
    assert beside == alone


@pytest.mark.slow
def test_probabilities_are_the_models_own_and_not_what_the_schema_left(engine):
    prompt = tuple(engine.tokenizer("JSON")["input_ids"])
    asked = GenerationRequest(prompt, None, 200, json_schema='{"const": "yes"}', logprobs=1)
    chunks, done = [], threading.Event()
    engine.submit(asked, lambda chunk: (chunks.append(chunk), chunk.finish_reason and done.set()))
    assert done.wait(60)
    assert json.loads("".join(chunk.text for chunk in chunks)) == "yes"
    told = [token for chunk in chunks for token in chunk.logprobs]
    assert any(token.id != token.likeliest[0][0] for token in told), "it would not have said so by itself"
    assert all(token.logprob <= token.likeliest[0][1] for token in told)


@pytest.mark.slow
def test_a_vocabulary_that_cannot_write_a_schema_is_said_and_others_are_answered(tiny_t5):
    engine = TransformersEngine(tiny_t5, None, "float32")
    try:
        prompt = tuple(engine.tokenizer("JSON")["input_ids"])
        with pytest.raises(EngineFailed, match="its vocabulary cannot write the schema"):
            engine.generate([GenerationRequest(prompt, json_schema=json.dumps(SCHEMA))])
        assert engine.generate([GenerationRequest(prompt, max_new_tokens=3)])[0].completion_tokens
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "no JSON"),
        ('{"type": "objekt"}', "none, at type"),
        ('{"properties": 5}', "none, at properties"),
        ("[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("[" * 20_000 + "]" * 20_000, "no JSON|nested more than 50 deep"),
        (json.dumps({"enum": ["x" * 60_000]}), "characters; 50000 are read"),
        ('{"type": "integer", "multipleOf": 7}', "multipleOf at its top"),
        ('{"properties": {"a": {"not": {"type": "null"}}}}', "not at properties/a,"),
        ('{"type": "array", "items": {"anyOf": [{}, {"uniqueItems": true}]}}', "uniqueItems at items/anyOf/1,"),
        ('{"$defs": {"x": {"allOf": []}}}', "allOf"),
        ('{"type": "string", "minLength": 3}', "minLength at its top"),
        ('{"type": "string", "pattern": "a", "format": "date"}', "format beside pattern at its top"),
        ('{"type": "string", "pattern": "a{1,5000}"}', "pattern at its top cannot be followed"),
        (r'{"type": "string", "pattern": "\\w"}', "pattern at its top cannot be followed"),
        (r'{"type": "string", "pattern": "a\"b"}', "pattern at its top cannot be followed"),
        (r'{"type": "string", "pattern": "a\\nb"}', "pattern at its top cannot be followed"),
        ('{"type": "string", "pattern": "^(?!admin)[a-z]+$"}', "pattern at its top cannot be followed"),
        ('{"type": "string", "pattern": "^a$b"}', "pattern at its top cannot be followed"),
        ('{"minimum": 3}', "minimum at its top and no type"),
        ('{"type": "string", "enum": ["' + "a" * 40 + '!"], "pattern": "^(a+)+$"}', "pattern beside enum"),
        ('{"enum": [{"a": 1}], "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}', "properties beside enum"),
        ('{"$defs": {"n": {}}, "enum": [1], "$ref": "#/$defs/n"}', "beside"),
        ('{"type": "array", "enum": [[1]], "items": {"anyOf": [{"$ref": "#/items"}]}}', "items beside enum"),
        ('{"$ref": "https://example.com/x"}', "none of its own"),
        ('{"$ref": "#/default", "default": {"multipleOf": 7}}', "none of its own"),
        ('{"const": 12345678901234567890}', "integer beyond"),
        (
            '{"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"type": "string"}}',
            "further properties are at its top",
        ),
        ('{"type": "string", "enum": ["a", 1]}', "type beside enum"),
        ('{"enum": [1, 2], "minimum": 2}', "minimum beside enum"),
        ('{"$defs": {"x": {}}, "$ref": "#/$defs/x", "type": "null"}', r"type beside \$ref"),
        ('{"anyOf": [{}], "type": "null"}', "type beside anyOf"),
        ('{"type": "string", "format": "iri"}', "format at its top is iri"),
        ('{"type": "object", "properties": {}, "required": ["b", "a"]}', "requires a at its top"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(schema, said):
    with pytest.raises(SchemaRefused, match=said):
        check_schema(schema)


def test_what_is_data_or_a_name_is_no_keyword():
    check_schema('{"enum": [{"not": 1}], "default": {"allOf": 2}}')
    check_schema('{"properties": {"not": {"const": {"if": 1}}}, "required": ["not"]}')
    check_schema('{"type": "string", "enum": ["a", "b"], "description": "not"}')


@pytest.mark.slow
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": r"^[a-c]{2,4}\d\.$"},
        {"type": "string", "pattern": "^.[^x]{2}$"},
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
        {"type": "integer", "exclusiveMinimum": 7, "maximum": 9},
        {"type": "number", "minimum": 0.5, "maximum": 2.5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": ["boolean", "null"]},
        {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
        {"type": "array", "prefixItems": [{"const": "a"}, {"type": "boolean"}], "items": False, "minItems": 2},
        {"type": "object", "additionalProperties": {"const": 1}},
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 1}}, "required": ["b"]},
        {"anyOf": [{"const": None}, {"enum": ["x", 3]}]},
        {
            "$defs": {"leaf": {"enum": ["l", "r"]}},
            "type": "object",
            "properties": {"one": {"$ref": "#/$defs/leaf"}, "two": {"$ref": "#/$defs/leaf"}},
            "required": ["one"],
            "additionalProperties": False,
        },
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_whatever_a_schema_may_say_is_what_comes(engine, schema):
    prompt = tuple(engine.tokenizer("JSON")["input_ids"])
    asked = [
        GenerationRequest(prompt, adapter, 300, 1.0, seed=seed, json_schema=json.dumps(schema))
        for seed, adapter in enumerate((None, "first", "second", None, "first", "second"))
    ]
    ended = [answer.text for answer in engine.generate(asked) if answer.finish_reason == "stop"]
    assert ended, "none came to its end"
    for text in ended:
        validate(json.loads(text), schema)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("date", r"\d{4}-\d\d-\d\d"),
        ("time", r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        ("date-time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        ("duration", r"P[0-9YMWDTHS]+"),
        ("uuid", r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
        ("ipv6", r"[0-9a-fA-F:.]+"),
    ],
)
def test_a_format_is_what_comes(engine, name, looks):
    prompt = tuple(engine.tokenizer("JSON")["input_ids"])
    schema = json.dumps({"type": "string", "format": name})
    asked = [GenerationRequest(prompt, None, 300, 1.0, seed=seed, json_schema=schema) for seed in range(4)]
    ended = [json.loads(one.text) for one in engine.generate(asked) if one.finish_reason == "stop"]
    assert ended and all(re.fullmatch(looks, text) for text in ended), ended
    if name == "ipv6":
        assert all(ipaddress.IPv6Address(text) for text in ended)


@pytest.mark.slow
def test_a_schema_that_cannot_be_followed_is_refused_and_the_engine_goes_on(engine):
    prompt = tuple(engine.tokenizer("JSON")["input_ids"])
    with pytest.raises(SchemaRefused, match="cannot be followed"):
        engine.submit(
            GenerationRequest(prompt, json_schema='{"type": "array", "minItems": 3, "maxItems": 1}'), lambda chunk: None
        )
    assert engine.generate([GenerationRequest(prompt, max_new_tokens=3)])[0].completion_tokens == 3
