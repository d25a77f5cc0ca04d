"""What a form changes of a recipe: the keys that differ, as overrides, as YAML and as a command line. Pure."""

import json
import re
from typing import Any

import yaml

from pipelines.recipe_file import parse_yaml
from ui.panel.recipe_fields import Field, Part

BREAKS = re.compile("[\\x7f-\\x9f\\u2028\\u2029\\ufeff]")
"""What YAML ends a line at, or refuses, and JSON leaves as it is."""
Changes = dict[str, Any]
"""Dotted key -> new value."""


def value_at(values: Any, key: str) -> Any:
    """The value under a dotted key, items of lists by their number; None where there is none."""
    for name in key.split("."):
        if isinstance(values, list):
            values = values[int(name)] if int(name) < len(values) else None
        elif isinstance(values, dict):
            values = values.get(name)
        else:
            return None
    return values


def changes(parts: tuple[Part, ...], before: dict[str, Any], entered: dict[str, Any]) -> Changes:
    """What `entered` (key -> value; a section that may be left out -> whether it is there) changes of `before`."""
    found: Changes = {}
    for part in parts:
        fields = [field for field in part.fields if field.key in entered]
        if part.optional and value_at(before, part.key) is None:
            if entered.get(part.key):
                found[part.key] = {f.name: entered[f.key] for f in fields if f.required or _differs(f, entered)}
        elif part.optional and not entered.get(part.key, True):
            found[part.key] = None
        elif any(entered[f.key] != value_at(before, f.key) for f in fields) and part.key.endswith(".0"):
            # An item of a list is changed with the whole list: overrides reach no further.
            found[part.key.removesuffix(".0")] = [{f.name: entered[f.key] for f in fields if _differs(f, entered)}]
        else:
            found |= {f.key: entered[f.key] for f in fields if entered[f.key] != value_at(before, f.key)}
    return found


def _differs(field: Field, entered: dict[str, Any]) -> bool:
    return bool(entered[field.key] != field.default)


def overrides(changed: Changes) -> list[str]:
    """The changes as `key=value`, each read back as the very value."""
    return [f"{key}={flow(value)}" for key, value in changed.items()]


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    text = text.strip().removesuffix("...").strip()
    # A break within a key or a text may span lines, or become a space.
    if "\n" not in text and parse_yaml(text) == value:
        return text
    return BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def as_yaml(changed: Changes) -> str:
    """The changes as they would stand in the recipe's file."""
    nested: dict[str, Any] = {}
    for key, value in changed.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return yaml.safe_dump(nested, sort_keys=False, allow_unicode=True) if nested else ""
