"""The fields of a recipe's form, from the recipe's own JSON schema: what each is called, means, and may be. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["flag", "choice", "choices", "whole", "number", "text", "yaml"]
SIMPLE: dict[str, Kind] = {"integer": "whole", "number": "number", "string": "text", "boolean": "flag"}


@dataclass(frozen=True)
class Field:
    """One key of the recipe."""

    key: str
    """Dotted, as on the command line: train.lora_r."""
    kind: Kind
    help: str
    """The text that stands beneath the key in the recipe's source."""
    default: Any = None
    required: bool = False
    """Whether it has no default."""
    optional: bool = False
    """Whether it may be null."""
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """The key without its section."""
        return self.key.rpartition(".")[2]


@dataclass(frozen=True)
class Part:
    """A section of the recipe, without the sections in it."""

    key: str
    """Dotted; empty for what stands in no section."""
    help: str
    fields: tuple[Field, ...]
    optional: bool = False
    """Whether the whole section may be left out, as the sweep."""

    @property
    def section(self) -> str:
        """The outermost section that it is part of."""
        return self.key.partition(".")[0]


def parts_of(schema: dict[str, Any]) -> tuple[Part, ...]:
    """The sections of `Recipe.model_json_schema()`, each before those in it, in the order of the recipe."""
    return tuple(_walk("", schema, schema["$defs"], optional=False))


def _walk(key: str, section: dict[str, Any], definitions: dict[str, Any], *, optional: bool) -> Iterator[Part]:
    fields, inner = [], []
    for name, described in section["properties"].items():
        place = f"{key}.{name}" if key else name
        found = _section_in(described)
        if found is None or optional:
            # A section in one that may be left out is written whole: an override of a part of it would bring it back.
            fields.append(_field(place, described, required=name in section.get("required", ())))
            continue
        reference, suffix, may_be_left_out = found
        inner.append((place + suffix, definitions[reference.rpartition("/")[2]], may_be_left_out))
    yield Part(key, _text(section) if key else "", tuple(fields), optional)
    for place, definition, may_be_left_out in inner:
        yield from _walk(place, definition, definitions, optional=may_be_left_out)


def _section_in(described: dict[str, Any]) -> tuple[str, str, bool] | None:
    """The reference of the section that a property holds, what to add to its key, and whether it may be null."""
    if "$ref" in described:
        return described["$ref"], "", False
    if described.get("type") == "array" and described.get("maxItems") == 1 and "$ref" in described["items"]:
        # A list of exactly one, as the models.
        return described["items"]["$ref"], ".0", False
    references = [variant["$ref"] for variant in described.get("anyOf", ()) if "$ref" in variant]
    return (references[0], "", True) if references else None


def _field(key: str, described: dict[str, Any], *, required: bool) -> Field:
    variants = described.get("anyOf", [described])
    meant = [variant for variant in variants if variant.get("type") != "null"]
    optional = len(meant) < len(variants)
    kind, choices = _kind(meant, optional)
    return Field(
        key=key,
        kind=kind,
        help=_text(described),
        default=described.get("default"),
        required=required,
        optional=optional,
        choices=choices,
        low=_bound(meant, "minimum", "exclusiveMinimum"),
        high=_bound(meant, "maximum", "exclusiveMaximum"),
    )


def _kind(variants: list[dict[str, Any]], optional: bool) -> tuple[Kind, tuple[Any, ...]]:
    named = [_named(variant) for variant in variants]
    if all(named) and (optional or len(variants) > 1 or variants[0].get("type") != "boolean"):
        return "choice", (*((None,) if optional else ()), *(value for values in named for value in values))
    if len(variants) == 1:
        (only,) = variants
        if only.get("type") == "array" and _named(only["items"]):
            return "choices", _named(only["items"])
        if only.get("type") in SIMPLE:
            return SIMPLE[only["type"]], ()
    # Lists, mappings, and a number or a word: as they stand in the file.
    return "yaml", ()


def _named(variant: dict[str, Any]) -> tuple[Any, ...]:
    """The values that a variant allows, where it names them."""
    if variant.get("type") == "boolean":
        return (True, False)
    return (variant["const"],) if "const" in variant else tuple(variant.get("enum", ()))


def _bound(variants: list[dict[str, Any]], name: str, exclusive: str) -> float | None:
    """The limit of the one numeric variant; an exclusive one between whole numbers is the number beside it."""
    if len(variants) != 1:
        return None
    (only,) = variants
    if name in only:
        return float(only[name])
    if exclusive not in only:
        return None
    if only["type"] == "integer":
        return float(only[exclusive] + (1 if name == "minimum" else -1))
    # The form lets the limit itself be typed, and the recipe refuses it with a sentence.
    return float(only[exclusive])


def _text(described: dict[str, Any]) -> str:
    return " ".join(str(described.get("description", "")).split())
