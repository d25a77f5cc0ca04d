import pytest

from pipelines.recipe import Recipe, Train
from ui.panel.recipe_fields import parts_of


@pytest.fixture(scope="module")
def parts():
    return parts_of(Recipe.model_json_schema())


@pytest.fixture(scope="module")
def fields(parts):
    return {field.key: field for part in parts for field in part.fields}


def test_every_key_of_the_recipe_has_a_field_and_each_its_text(fields):
    assert {f"train.{name}" for name in Train.model_fields if name != "deepspeed"} <= set(fields)
    assert {"name", "seed", "dataset.source", "train.deepspeed.stage", "models.0.base", "sweep.space"} <= set(fields)
    assert [key for key, field in fields.items() if not field.help] == []
    assert fields["train.lora_r"].help == "Rank of the adapters."


def test_sections_come_in_the_recipes_order_each_before_those_in_it(parts):
    keys = [part.key for part in parts]
    assert keys[:3] == ["", "dataset", "dataset.provenance"]
    assert keys.index("train") + 1 == keys.index("train.deepspeed")
    assert [part.key for part in parts if part.optional] == ["audit.semantic", "sweep", "experiment"]
    assert {part.section for part in parts if part.key.startswith("train")} == {"train"}


@pytest.mark.parametrize(
    ("key", "kind", "choices"),
    [
        ("train.method", "choice", ("lora", "qlora", "full")),
        ("train.deepspeed.stage", "choice", (0, 1, 2, 3)),
        ("audit.private.action", "choice", (None, "mask", "drop", "allow")),
        ("cluster.use_gpu", "choice", (True, False, "auto")),
        ("train.packing", "flag", ()),
        ("train.lora_r", "whole", ()),
        ("train.learning_rate", "number", ()),
        ("dataset.group_by", "text", ()),
        ("train.per_device_train_batch_size", "yaml", ()),
        ("train.target_modules", "yaml", ()),
        ("sweep.space", "yaml", ()),
        ("experiment.primary", "yaml", ()),
        ("experiment.effect", "yaml", ()),
    ],
)
def test_a_field_is_what_its_values_are(fields, key, kind, choices):
    assert (fields[key].kind, fields[key].choices) == (kind, choices)


def test_several_of_named_values_are_chosen_from_those(fields):
    assert fields["audit.private.kinds"].kind == "choices"
    assert "iban" in fields["audit.private.kinds"].choices


def test_limits_and_defaults_are_the_recipes(fields):
    rank, rate, seed = fields["train.lora_r"], fields["train.learning_rate"], fields["seed"]
    assert (rank.low, rank.high, rank.default, rank.optional) == (1, 1024, 16, False)
    assert (rate.low, rate.high, rate.default, rate.optional) == (0, None, None, True)
    assert seed.high == 2**31 - 1
    assert fields["dataset.source"].required
