"""The description at /openapi.json."""

import asyncio
import json
import re

from serve.schemas import ChatRequest, CompletionRequest


def described(http, service):
    async def go():
        async with http(service) as client:
            return (await client.get("/openapi.json")).json()

    return asyncio.run(go())


def body(description, path):
    return description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_every_route_is_described_and_every_reference_leads_somewhere(http, service_of):
    description = described(http, service_of())
    assert set(description["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/feedback",
        "/v1/events",
        "/v1/models",
        "/metrics",
        "/healthz",
    }
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(description)):
        place = description
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_bodies_have_the_schemas_that_requests_are_held_against(http, service_of):
    import jsonschema

    description = described(http, service_of())
    for path, model, fitting in (
        ("/v1/chat/completions", ChatRequest, {"messages": [{"role": "user", "content": "Hello"}]}),
        ("/v1/completions", CompletionRequest, {"prompt": "Hello"}),
    ):
        schema = body(description, path)
        assert schema == {"$ref": f"#/components/schemas/{model.__name__}"}
        whole = schema | {"components": description["components"]}
        jsonschema.Draft202012Validator.check_schema(whole)
        validator = jsonschema.Draft202012Validator(whole)
        assert validator.is_valid(fitting) and not validator.is_valid(fitting | {"max_tokens": 0})
        assert not validator.is_valid(fitting | {"functions": []}) and not validator.is_valid({})


def test_keys_are_part_of_it_where_they_are_asked_for(http, service_of):
    assert "securitySchemes" not in described(http, service_of())["components"]
    description = described(http, service_of(keys="required"))
    assert description["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert description["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert description["paths"]["/healthz"]["get"]["security"] == []
