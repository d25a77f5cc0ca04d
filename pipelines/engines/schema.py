"""Which JSON schemas an answer can be made to follow: all of what such a schema says, or none of it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from cluster.errors import first_line
from pipelines.engines.protocol import SchemaRefused

MOST_CHARACTERS, MOST_DEPTH = 50_000, 50
"""Of a schema: what it compiles to grows with it, and so does the time."""

SAY_NOTHING = {"$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "title"}
NAMES = {"$defs", "definitions"}
ALONE = {"$ref", "anyOf", "const", "enum"}
"""What stands beside one of these is dropped."""
TYPED = {
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "pattern",
    "prefixItems",
}
"""What these say is dropped where no type is said."""
FOLLOWED = NAMES | ALONE | TYPED | {"additionalProperties", "properties", "required", "type"}
"""Keywords that xgrammar 0.2.9 makes a grammar of. What others say (`not`, `allOf`, `uniqueItems` ...) it drops; of
`multipleOf` it makes grammars that take minutes, and of `maxLength` ones with characters that JSON does not allow."""
FORMATS = {"date", "date-time", "duration", "ipv6", "time", "uuid"}
"""Of dates the shape alone: some name the 31st of April."""
PATTERN = re.compile(r"\^?(?:[^\\\"^$\x00-\x1f]|\[\^|\\[d.+*?()\[\]{}|^$/-])*\$?")
"""No quotation marks, backslashes and control characters, which JSON writes otherwise; no classes that differ between
dialects; no anchors within, which are ignored."""
LOOK_AROUND = re.compile(r"\(\?(?!:)")
MOST_INTEGER = 2**63 - 1
LONG_REPETITION = re.compile(r"\{\s*\d{4,}|,\s*\d{4,}\s*\}")


def check_schema(schema: str) -> None:
    """Raise SchemaRefused for what is no JSON schema, cannot be followed to the letter, or is too large."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if len(schema) > MOST_CHARACTERS:
        raise SchemaRefused(f"The schema has {len(schema)} characters; {MOST_CHARACTERS} are read.")
    try:
        content = json.loads(schema)
        if depth(content) > MOST_DEPTH:
            raise SchemaRefused(f"The schema is nested more than {MOST_DEPTH} deep.")
        Draft202012Validator.check_schema(content)
    except SchemaError as error:
        place = "/".join(map(str, error.path)) or "its top"
        raise SchemaRefused(f"The schema is none, at {place}: {first_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise SchemaRefused(f"The schema is no JSON: {first_line(error)}") from None
    if any(isinstance(value, int) and abs(value) > MOST_INTEGER for value in _values(content)):
        raise SchemaRefused(f"The schema has an integer beyond {MOST_INTEGER}, which cannot be followed.")
    named = {f"#/{key}/{name}" for key in NAMES for name in (content.get(key, {}) if isinstance(content, dict) else ())}
    for place, part in _schemas(content, ""):
        if part.get("$ref", "#") not in {"#", *named}:
            raise SchemaRefused(
                f"The schema's $ref at {place or 'its top'} is {part['$ref'][:100]!r}, which is none of its own $defs."
            )
        _check_part(place or "its top", part)


def _check_part(place: str, part: dict[str, Any]) -> None:
    said = part.keys() - SAY_NOTHING - NAMES
    if unknown := sorted(said - FOLLOWED):
        raise SchemaRefused(f"The schema says {unknown[0]} at {place}, which cannot be followed.")
    for word in sorted(said & ALONE):
        beside = said - {word}
        values = {"enum": part.get("enum"), "const": [part.get("const")]}.get(word)
        if beside and (beside != {"type"} or values is None or not _have_type(values, part["type"])):
            raise SchemaRefused(f"The schema says {min(beside)} beside {word} at {place}; both cannot be followed.")
    if isinstance(part.get("additionalProperties"), dict) and part.get("properties"):
        # Other spellings of a property's name would pass for further properties.
        raise SchemaRefused(f"The schema says what further properties are at {place}; say false, or name no others.")
    if "type" not in said and (untyped := sorted(said & TYPED)):
        raise SchemaRefused(f"The schema says {untyped[0]} at {place} and no type; that cannot be followed.")
    pattern = part.get("pattern", "")
    if not PATTERN.fullmatch(pattern) or LOOK_AROUND.search(pattern) or LONG_REPETITION.search(pattern):
        raise SchemaRefused(
            f"The schema's pattern at {place} cannot be followed: no quotation mark, no backslash but before d and "
            "signs, no anchor but at its ends, no look-around, no repetition of a thousand times."
        )
    if "pattern" in said and "format" in said:
        raise SchemaRefused(f"The schema says format beside pattern at {place}; both cannot be followed.")
    if part.get("format", "date") not in FORMATS:
        raise SchemaRefused(
            f"The schema's format at {place} is {part['format']}; these can be followed: {', '.join(sorted(FORMATS))}."
        )
    if unnamed := set(part.get("required", [])) - part.get("properties", {}).keys():
        raise SchemaRefused(f"The schema requires {min(unnamed)} at {place}, which is none of its properties.")


def _have_type(values: list[Any], type_: Any) -> bool:
    """Whether all of an enumeration have the type that stands beside it."""
    from jsonschema import Draft202012Validator

    return all(map(Draft202012Validator({"type": type_}).is_valid, values))


def _schemas(part: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its place; what is data (`enum`, `const`, `default`) is none."""
    if not isinstance(part, dict):
        return
    yield place, part
    inner = [(key, part[key]) for key in ("items", "additionalProperties") if key in part]
    inner += [(f"{key}/{n}", one) for key in ("anyOf", "prefixItems") for n, one in enumerate(part.get(key, []))]
    inner += [
        (f"{key}/{name}", one)
        for key in ("properties", "$defs", "definitions")
        for name, one in part.get(key, {}).items()
    ]
    for name, one in inner:
        yield from _schemas(one, f"{place}/{name}" if place else name)


def _values(content: Any) -> Iterator[Any]:
    """What lists and objects hold that is neither, at any depth."""
    if isinstance(content, dict | list):
        for one in content.values() if isinstance(content, dict) else content:
            yield from _values(one)
    else:
        yield content


def depth(content: Any) -> int:
    """How deep lists and objects are nested; not looked for beyond what counts."""
    level, deep = [content], 0
    while deep <= MOST_DEPTH:
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            break
        level = [value for one in inner for value in (one.values() if isinstance(one, dict) else one)]
        deep += 1
    return deep
