"""The JSON schema of an answer that must be a call of a tool."""

from collections.abc import Mapping, Sequence
from typing import Any

NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def call_schema(functions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """JSON schema of a call of one of these functions: `{"name": ..., "arguments": ...}`."""
    definitions: dict[str, Any] = {}
    calls = []
    for function in functions:
        name, parameters = function["name"], function.get("parameters") or NO_PARAMETERS
        parts = {name: {key: value for key, value in parameters.items() if key not in ("$defs", "definitions")}}
        # What the parameters refer to counts from their own top, which is not the call's.
        places = {"#": f"#/$defs/{name}"}
        for key in ("$defs", "definitions"):
            named = parameters.get(key, {})
            for inner, part in named.items() if isinstance(named, dict) else ():
                parts[f"{name}.{key}.{inner}"] = part
                places[f"#/{key}/{inner}"] = f"#/$defs/{name}.{key}.{inner}"
        definitions |= {place: _moved(part, places) for place, part in parts.items()}
        properties = {"name": {"const": name}, "arguments": {"$ref": places["#"]}}
        required = list(properties)
        calls.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    return (calls[0] if len(calls) == 1 else {"anyOf": calls}) | {"$defs": definitions}


def _moved(part: Any, places: Mapping[str, str]) -> Any:
    """The same with every `$ref` where it leads now."""
    if isinstance(part, list):
        return [_moved(one, places) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: places.get(value, value) if key == "$ref" and isinstance(value, str) else _moved(value, places)
        for key, value in part.items()
    }
