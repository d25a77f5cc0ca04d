import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.recipe import Recipe
from pipelines.recipe_file import apply_override, load_recipe, parse_yaml
from pipelines.submissions import command_words
from ui.panel.recipe_changes import as_yaml, changes, flow, overrides, value_at
from ui.panel.recipe_fields import parts_of

PARTS = parts_of(Recipe.model_json_schema())
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@pytest.fixture
def path(recipe_file):
    return recipe_file(train={"lora_r": 8})


@pytest.fixture
def before(path):
    return load_recipe(path).model_dump(mode="json")


def as_it_is(before):
    """What a form that nobody touched hands over."""
    entered = {part.key: value_at(before, part.key) is not None for part in PARTS if part.optional}
    for part in PARTS:
        if not part.optional or entered[part.key]:
            entered |= {field.key: value_at(before, field.key) for field in part.fields}
    return entered


def test_an_untouched_form_changes_nothing(before):
    assert changes(PARTS, before, as_it_is(before)) == {}
    assert as_yaml({}) == ""


def test_only_what_differs_from_the_recipe_is_changed(before, path):
    entered = as_it_is(before) | {"train.lora_r": 16, "seed": 3, "train.deepspeed.stage": 2, "train.max_steps": None}
    found = changes(PARTS, before, entered)
    # 16 is the default, and not what the recipe says.
    assert found == {"seed": 3, "train.lora_r": 16, "train.deepspeed.stage": 2}
    assert overrides(found) == ["seed=3", "train.lora_r=16", "train.deepspeed.stage=2"]
    assert yaml.safe_load(as_yaml(found)) == {"seed": 3, "train": {"lora_r": 16, "deepspeed": {"stage": 2}}}
    changed = load_recipe(path, overrides(found))
    assert (changed.seed, changed.train.lora_r, changed.train.deepspeed.stage) == (3, 16, 2)


def test_the_base_is_changed_with_the_list_that_it_stands_in(before, path):
    found = changes(PARTS, before, as_it_is(before) | {"models.0.base": "owner/other"})
    assert overrides(found) == ["models=[{base: owner/other}]"]
    assert load_recipe(path, overrides(found)).base.base == "owner/other"


def test_a_section_that_may_be_left_out_comes_and_goes_whole(before, path, recipe_file):
    space = {"lora_r": {"choice": [8, 16]}}
    defaults = {field.key: field.default for part in PARTS if part.key == "sweep" for field in part.fields}
    entered = as_it_is(before) | {"sweep": True} | defaults | {"sweep.space": space, "sweep.num_samples": 2}
    found = changes(PARTS, before, entered)
    assert found == {"sweep": {"num_samples": 2, "space": space}}
    assert load_recipe(path, overrides(found)).sweep.num_samples == 2
    swept = load_recipe(recipe_file("swept.yaml", sweep={"space": space})).model_dump(mode="json")
    assert changes(PARTS, swept, as_it_is(swept)) == {}
    assert overrides(changes(PARTS, swept, as_it_is(swept) | {"sweep": False})) == ["sweep=null"]


def test_sections_within_one_that_may_be_left_out_are_written_whole(before, path, recipe_file):
    defaults = {field.key: field.default for part in PARTS if part.key == "experiment" for field in part.fields}
    assert changes(PARTS, before, as_it_is(before) | {"experiment": False}) == {}
    primary = {"metric": "event.resolved"}
    entered = as_it_is(before) | {"experiment": True} | defaults | {"experiment.primary": primary}
    found = changes(PARTS, before, entered | {"experiment.planned_units": 2000})
    assert found == {"experiment": {"primary": primary, "planned_units": 2000}}
    assert load_recipe(path, overrides(found)).experiment.primary.metric == "event.resolved"
    tried = load_recipe(recipe_file("tried.yaml", **found)).model_dump(mode="json")
    assert changes(PARTS, tried, as_it_is(tried)) == {}


@settings(deadline=None)
@given(value=VALUES)
def test_an_override_is_read_back_as_the_very_value(value):
    text = flow(value)
    assert "\n" not in text
    assert parse_yaml(text) == value


@pytest.mark.parametrize("value", ["17", "yes", "a: b", "# no comment", "it's; $(rm -rf /)", "two\nlines", "", " x "])
def test_a_text_stays_a_text_through_shell_and_yaml(value):
    line = shlex.join(command_words("train", "/a folder/recipe.yaml", overrides({"dataset.instruction": value})))
    *_, path, override = shlex.split(line)
    content = {"dataset": {}}
    apply_override(content, override)
    assert (path, content["dataset"]["instruction"]) == ("/a folder/recipe.yaml", value)
