"""A recipe's form: a tab for each section, a widget for each key, as its schema says."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import streamlit as st
import yaml

from pipelines.fingerprint import fingerprint, short
from pipelines.recipe import Recipe
from pipelines.recipe_file import parse_yaml
from ui.panel.recipe_changes import flow, value_at
from ui.panel.recipe_fields import Field, Part, parts_of

WIDE = ("text", "yaml", "choices")


@cache
def parts() -> tuple[Part, ...]:
    """The sections of a recipe."""
    return parts_of(Recipe.model_json_schema())


class Form:
    """What was entered, and what of it cannot be read."""

    def __init__(self, before: dict[str, Any], key: str) -> None:
        self._before, self._key = before, key
        self.entered: dict[str, Any] = {}
        """Key -> value; of a section that may be left out, whether it is there."""
        self.problems: list[str] = []

    def show(self) -> None:
        """Draw every field; what the recipe says stands in it."""
        sections = dict.fromkeys(part.section for part in parts())
        tabs = st.tabs([name or "recipe" for name in sections], default="train", key=f"{self._key}-sections")
        for name, tab in zip(sections, tabs, strict=True):
            with tab:
                for part in parts():
                    if part.section == name:
                        self._part(part)

    def show_keys(self, keys: Sequence[str]) -> None:
        """Draw the fields of these keys alone."""
        fields = {field.key: field for part in parts() for field in part.fields}
        place = f"{self._key}-fields-{short(fingerprint(list(keys)))}"
        with st.container(horizontal=True, key=place, gap="small"):
            for key in keys:
                if key in fields:
                    self._field(fields[key], absent=False)

    def _part(self, part: Part) -> None:
        if part.key != part.section:
            st.html(f'<h2 class="part">{part.key.removesuffix(".0")}</h2>')
        if part.help:
            st.caption(part.help)
        if part.optional:
            there = value_at(self._before, part.key) is not None
            label = f"with {part.key}"
            self.entered[part.key] = st.toggle(label, there, key=f"{self._key}:{part.key}")
            if not self.entered[part.key]:
                return
        with st.container(horizontal=True, key=f"{self._key}-fields-{part.key or 'recipe'}", gap="small"):
            for field in part.fields:
                self._field(field, absent=value_at(self._before, part.key) is None if part.key else False)

    def _field(self, field: Field, *, absent: bool) -> None:
        value = field.default if absent else value_at(self._before, field.key)
        options: Any = {"key": f"{self._key}:{field.key}", "help": help_of(field), "width": 330 if wide(field) else 210}
        match field.kind:
            case "flag":
                entered: Any = st.checkbox(field.name, bool(value), **options)
            case "choice":
                entered = st.selectbox(
                    field.name, field.choices, field.choices.index(value), format_func=flow, **options
                )
            case "choices":
                entered = st.multiselect(field.name, field.choices, value, format_func=flow, **options)
            case "whole" | "number":
                entered = _number(field, value, options)
            case "text":
                # A line has no room for the ends of several.
                write = st.text_area if "\n" in (value or "") else st.text_input
                text = write(field.name, value or "", placeholder="none" if field.optional else None, **options)
                entered = None if field.optional and not text else text
            case _:
                entered = self._yaml(field, value, options)
        self.entered[field.key] = entered

    def _yaml(self, field: Field, value: Any, options: Any) -> Any:
        text = st.text_input(field.name, "" if field.required and value is None else flow(value), **options)
        try:
            return parse_yaml(text or "")
        except yaml.YAMLError:
            self.problems.append(f"{field.key}: not YAML, as in {example(field)}")
            return value


def _number(field: Field, value: Any, options: Any) -> int | float | None:
    # Streamlit wants the value, its limits and its step to be of one type.
    kind: Any = int if field.kind == "whole" else float
    low, high, shown = (None if number is None else kind(number) for number in (field.low, field.high, value))
    entered: int | float | None = st.number_input(
        field.name,
        min_value=low,
        max_value=high,
        value=shown,
        step=1 if kind is int else None,
        format="%d" if kind is int else "%g",
        placeholder="none" if field.optional else "",
        **options,
    )
    # 64.0 reads better as 64, and is the same to the recipe.
    return int(entered) if isinstance(entered, float) and entered.is_integer() and abs(entered) < 1e15 else entered


def wide(field: Field) -> bool:
    """Whether its values are longer than a number or a word."""
    return field.kind in WIDE


def example(field: Field) -> str:
    """How a value is written."""
    return flow(field.default) if field.default else "{lora_r: {choice: [8, 16]}} or [a, b]"


def help_of(field: Field) -> str:
    """The field's text, its default and its limits."""
    told = [field.help]
    if not field.required:
        told.append(f"Default: `{flow(field.default)}`.")
    if field.low is not None:
        told.append(f"Not below {field.low:g}.")
    if field.high is not None:
        told.append(f"Not above {field.high:g}.")
    return "  \n".join(told)
