"""What every section of a recipe is: frozen, and closed to unknown keys."""

import ast
import functools
import inspect
import itertools
import re
import textwrap
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PowerOfTwo = Annotated[int, Field(ge=1, le=65536)]


def _plain_name(value: str) -> str:
    if ".." in value.split("/") or not re.fullmatch(r"[\w./~-]+", value, re.ASCII):
        raise ValueError("must be a hub name such as owner/model or a folder, without '..' or other characters")
    return value


ModelName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain_name)]
"""Hub name or local folder of a model."""


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    @functools.cache
    def meanings(cls) -> dict[str, str]:
        """Key -> the text under it. Read from the source when somebody asks: pydantic would do so at every import."""
        found = {}
        for section in reversed(cls.__mro__):
            if not issubclass(section, Section):
                continue
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
            assert isinstance(node, ast.ClassDef), "the source of a class"
            for key, below in itertools.pairwise(node.body):
                match key, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                        found[name] = inspect.cleandoc(text)
        return found

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """With each key's meaning."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in cls.meanings().items():
            properties[name].setdefault("description", text)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _bare_heading_is_default(cls, value: Any) -> Any:
        """A section whose keys are all commented out reads as null in YAML: it has its defaults."""
        if not isinstance(value, dict):
            return value
        headings = {key for key, field in cls.model_fields.items() if isinstance(field.default, Section)}
        return {key: inner for key, inner in value.items() if not (inner is None and key in headings)}

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads yes and on as true, and true would pass for the number 1.
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and "bool" not in str(field.annotation):
            raise ValueError(f"must not be {'yes' if value else 'no'}: YAML reads that word as true or false")
        return value


def nearest(word: str, known: Any) -> str:
    """`; did you mean X?` for the known word nearest to `word`, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
