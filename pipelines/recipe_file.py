"""Recipe files: YAML in, one message with every problem out."""

import re
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from pipelines.recipe import Recipe
from pipelines.recipe_data import Source
from pipelines.section import nearest


class _Loader(yaml.SafeLoader):
    """Safe YAML with 1e-5 as a number and a repeated key as an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 reads 1e-5 (no dot) as text, and people write learning rates that way.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe in `path` with dotted `key=value` overrides applied.

    Relative paths in it are taken from the recipe's folder. Raises UserError that lists every problem.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such recipe.", "Name a recipe file, or write one with `sluice init`.")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}.", "Save the recipe as UTF-8.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_problem(error)}", "Correct the YAML at that place.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections.", "Start from `sluice init`.")
    for override in overrides:
        apply_override(content, override)
    return resolve(content, str(path), path.absolute().parent)


def parse_yaml(text: str) -> Any:
    """What `text` holds, by safe loading only: no tags that build objects."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None


def resolve(content: dict[str, Any], place: str, folder: Path) -> Recipe:
    """A Recipe from plain values; sources become absolute. Raises UserError with all problems."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        # A list whose items are wrong is also reported as too short: that says nothing new.
        inner = {item["loc"][0] for item in error.errors() if len(item["loc"]) > 1}
        problems = [
            _problem(item) for item in error.errors() if not (item["type"] == "too_short" and item["loc"][0] in inner)
        ]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(
            f"{place}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems),
            "Correct them; `sluice schema` lists every key.",
        ) from None
    absolute = _absolute(recipe.dataset.source, folder)
    dataset = recipe.dataset.model_copy(update={"source": absolute[0] if len(absolute) == 1 else absolute})
    split = recipe.split.model_copy(update={"benchmarks": _absolute(recipe.split.benchmarks, folder)})
    base = recipe.base.model_copy(update={"base": _model(recipe.base.base, folder)})
    audit = recipe.audit.model_copy(
        update={"tokenizers": tuple(_model(name, folder) for name in recipe.audit.tokenizers)}
    )
    if audit.semantic and audit.semantic.model:
        named = audit.semantic.model_copy(update={"model": _model(audit.semantic.model, folder)})
        audit = audit.model_copy(update={"semantic": named})
    return recipe.model_copy(update={"dataset": dataset, "audit": audit, "split": split, "models": (base,)})


def _model(name: str, folder: Path) -> str:
    """A model's folder as an absolute path where there is one, else the name."""
    return str((folder / name).absolute()) if (folder / name).is_dir() else name


def _absolute(sources: Source, folder: Path) -> tuple[str, ...]:
    listed = [sources] if isinstance(sources, str) else list(sources)
    return tuple(s if "://" in s else str(folder / Path(s).expanduser()) for s in listed)


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in `content`; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is no override.", "Write key=value, as in train.learning_rate=2e-4.")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: {_yaml_problem(error)}", "Quote the value as YAML wants it.") from None
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            remedy = (
                "Give the whole list: models=[{base: NAME}]."
                if parent == "models"
                else "`sluice schema` lists every key."
            )
            raise UserError(f"{key}: {parent} is not a section.", remedy)
        place = inner
    place[last] = value


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that loads to the same recipe."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    _keep_switched_off(recipe, content)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _keep_switched_off(section: BaseModel, content: dict[str, Any]) -> None:
    """Write null where it is not the default: left out it would be switched on again."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and field.default is not None:
            content[name] = None
        elif isinstance(value, BaseModel):
            _keep_switched_off(value, content[name])


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error) or "not valid YAML"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}." if mark else f"{problem}."


def _problem(item: Any) -> str:
    place = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        section = _section_at(place[:-1])
        known = section.model_fields if section else {}
        return f"{'.'.join(place)}: unknown key{nearest(place[-1], known)}"
    if item["type"] == "missing":
        return f"{'.'.join(place)}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = item.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{'.'.join(place) or 'recipe'}: {message}{shown}"


def _section_at(place: list[str]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Recipe
    for part in place:
        if part.isdigit():
            continue
        field = section.model_fields.get(part) if section else None
        section = _model_in(field.annotation) if field else None
    return section


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for argument in get_args(annotation):
            if model := _model_in(argument):
                return model
    return None
