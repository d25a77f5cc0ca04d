"""A commented recipe to start from, written from the fields themselves so that it never goes stale."""

import textwrap
from typing import Any

import yaml

from pipelines.recipe import Recipe, Sweep
from pipelines.section import Section

WIDTH = 100
EXAMPLE_SPACE = {"learning_rate": {"loguniform": [1e-4, 1e-3]}, "lora_r": {"choice": [8, 16, 32]}}


def commented_recipe(name: str, source: str, base: str) -> str:
    """A whole recipe as YAML: every key with its description above it and its default as the value.

    What has no default (an optional key, the sweep) stands there as a comment.
    """
    chosen = {"name": name, "dataset.source": source, "models": [{"base": base}]}
    lines = ["# A Sluice recipe: everything that a run depends on. Try `sluice audit` on it first.", ""]
    for key, field in Recipe.model_fields.items():
        if key == "sweep":
            lines += ["", *_comment(_describe(Recipe, key, Sweep), 0), *_sweep()]
        elif isinstance(field.default, Section) or key == "dataset":
            section = type(field.default) if isinstance(field.default, Section) else field.annotation
            lines += [
                "",
                *_comment(_describe(Recipe, key, section), 0),
                f"{key}:",
                *_section(section, 1, f"{key}.", chosen),
            ]
        else:
            before = [""] if key == "models" else []
            lines += [*before, *_comment(_describe(Recipe, key), 0), _pair(key, chosen.get(key, field.default), 0)]
    return "\n".join(lines) + "\n"


def _section(section: Any, depth: int, path: str, chosen: dict[str, Any]) -> list[str]:
    lines = []
    for key, field in section.model_fields.items():
        lines += _comment(_describe(section, key), depth)
        default = chosen.get(path + key, field.default)
        if isinstance(default, Section):
            lines += [f"{'  ' * depth}{key}:", *_section(type(default), depth + 1, f"{path}{key}.", chosen)]
        elif default is None:
            lines.append(f"{'  ' * depth}# {key}:")
        else:
            lines.append(_pair(key, default, depth))
    return lines


def _sweep() -> list[str]:
    lines = ["# sweep:"]
    for key, field in Sweep.model_fields.items():
        lines += ["#   " + line for line in _comment(_describe(Sweep, key), 0)]
        if key != "space" and field.default is None:
            lines.append(f"#   # {key}:")
            continue
        lines.append("#   " + _pair(key, EXAMPLE_SPACE if key == "space" else field.default, 0))
    return lines


def _pair(key: str, value: Any, depth: int) -> str:
    shown = value.model_dump() if isinstance(value, Section) else value
    text = yaml.safe_dump(_plain(shown), default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return f"{'  ' * depth}{key}: {text.removesuffix(chr(10)).removesuffix('...').strip()}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _describe(parent: type[Section], key: str, section: Any = None) -> str:
    """A key's meaning; that of the section that it holds where nothing else is said."""
    text = parent.meanings().get(key) or (section.__doc__ if section else "") or ""
    return " ".join(text.split())


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth + "# "
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
