"""The description at /openapi.json: routes read their bodies themselves, so it is told here what these hold."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.schemas import ChatRequest, CompletionRequest, EventsRequest, FeedbackRequest

BODIES: tuple[type[BaseModel], ...] = (ChatRequest, CompletionRequest, FeedbackRequest, EventsRequest)
PLACE = "#/components/schemas/"
OPEN = ("/healthz",)
"""Paths that ask for no key."""


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """What a route says of its body; `describe` adds the schema that this points to."""
    schema = {"$ref": PLACE + model.__name__}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI, *, keys: bool) -> None:
    """Complete the description of a gateway with all its routes; `keys`: whether it asks for one."""
    described = app.openapi()
    _, definitions = models_json_schema([(model, "validation") for model in BODIES], ref_template=PLACE + "{model}")
    components = described.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in described["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN else [{"key": []}]
