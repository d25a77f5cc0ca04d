"""The search space: which keys apply, what a grid holds, what is refused."""

import pytest

from pipelines.recipe import Recipe, Sweep, Train, edges
from pipelines.search.space import applies, draw_values, grid, usual_space, with_values


def sweep(**values):
    return Sweep.model_validate({"space": {"lora_r": {"choice": [8]}}} | values)


def first(key, kind, values):
    return values[0]


@pytest.mark.parametrize("key", ["max_length", "num_train_epochs", "eval_steps", "deepspeed"])
def test_what_trials_ignore_or_cannot_compare_is_no_part_of_a_space(key):
    with pytest.raises(ValueError, match=f"space.{key} cannot be swept: "):
        sweep(space={key: {"choice": [1]}})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"space": {}}, "space is empty"),
        ({"space": {"lora_rank": {"choice": [8]}}}, "no key of train"),
        ({"space": {"lora_r": {"choice": [8], "uniform": [1, 2]}}}, "needs exactly one of"),
        ({"space": {"lora_r": {"choice": 8}}}, "needs a list"),
        ({"space": {"lora_r": {"randint": [8, 4]}}}, "low below high"),
        ({"space": {"learning_rate": {"loguniform": [0, 1]}}}, "low above 0"),
        ({"space": {"learning_rate": {"loguniform": "abc"}}}, "two numbers"),
        ({"space": {"learning_rate": {"uniform": [True, False]}}}, "two numbers"),
        ({"space": {"lora_r": {"randint": [1.5, 4]}}}, "whole numbers"),
        ({"space": {"lora_r": {"loguniform": [4, 64]}}}, "use randint"),
        ({"space": {"lora_r": {"choice": [8], "when": {"methode": ["lora"]}}}}, "no key of train"),
        ({"space": {"lora_r": {"choice": [8], "when": {"method": "lora"}}}}, "needs {KEY: .VALUES.}"),
        ({"search": "grid", "space": {"learning_rate": {"loguniform": [1e-5, 1e-3]}}}, "a grid needs"),
        ({"search": "grid", "space": None}, "needs a space of choices"),
        ({"grace_steps": 99}, "above max_steps"),
        ({"objectives": ["cost"]}, "objectives are"),
        ({"max_hours": 0}, "greater than 0"),
        ({"num_samples": 513}, "less than or equal to 512"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_with_its_place(values, problem):
    with pytest.raises(ValueError, match=problem):
        sweep(**values)


def test_a_budget_in_money_needs_a_price(recipe_file):
    from cluster.errors import UserError
    from pipelines.recipe_file import load_recipe

    with pytest.raises(UserError, match=r"sweep.max_cost needs cluster.price_per_hour"):
        load_recipe(recipe_file(sweep={"max_cost": 3}))
    assert isinstance(load_recipe(recipe_file(sweep={"max_cost": 3}, cluster={"price_per_hour": 1})), Recipe)


def test_the_edges_of_a_space_are_its_choices_and_the_ends_of_its_ranges():
    space = {"lora_r": {"randint": [4, 6]}, "learning_rate": {"loguniform": [1e-5, 1e-3]}, "method": {"choice": ["a"]}}
    assert edges(space) == [
        {"lora_r": 4},
        {"lora_r": 5},
        {"learning_rate": 1e-5},
        {"learning_rate": 1e-3},
        {"method": "a"},
    ]
    conditional = {"use_dora": {"choice": [True], "when": {"method": ["lora"]}}}
    assert edges(conditional) == [{"method": "lora", "use_dora": True}]


def test_values_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="above"):
        with_values(Train(global_batch_size=2), {"per_device_train_batch_size": 4})


def test_keys_of_adapters_are_left_out_where_all_weights_are_learnt():
    space = {"lora_r": {"choice": [8]}, "learning_rate": {"choice": [1e-4]}, "method": {"choice": ["full", "lora"]}}
    assert draw_values(space, Train(), first) == {"method": "full", "learning_rate": 1e-4}
    assert not applies("lora_r", space["lora_r"], {}, Train(method="full"))
    assert applies("lora_r", space["lora_r"], {"method": "lora"}, Train(method="full"))


def test_a_key_with_a_condition_is_drawn_only_where_it_holds():
    space = {
        "warmup_steps": {"choice": [0.1], "when": {"lr_scheduler_type": ["cosine"]}},
        "lr_scheduler_type": {"choice": ["linear", "cosine"]},
    }
    assert draw_values(space, Train(), first) == {"lr_scheduler_type": "linear"}
    assert draw_values(space, Train(), lambda key, kind, values: values[-1]) == {
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
    }


def test_a_grid_holds_each_point_that_differs_once():
    space = {"method": {"choice": ["lora", "full"]}, "lora_r": {"choice": [4, 8]}, "weight_decay": {"choice": [0, 0.1]}}
    points = grid(space, Train())
    assert len(points) == 2 * 2 + 2
    assert {"method": "full", "weight_decay": 0.1} in points
    assert grid({"lora_r": {"randint": [4, 7]}}, Train()) == [{"lora_r": 4}, {"lora_r": 5}, {"lora_r": 6}]


@pytest.mark.parametrize("train", [Train(), Train(method="full"), Train(objective="dpo")])
def test_the_usual_ranges_are_themselves_a_valid_space(train):
    space = usual_space(train)
    assert Sweep(space=space).space == space
    assert ("lora_r" in space) == train.trains_adapters
    for values in edges(space):
        with_values(train, values)
