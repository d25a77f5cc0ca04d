"""The search space, and which trials are compared when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipe import Sweep, Train
from pipelines.search.schedulers import rungs
from pipelines.search.space import tune_space, with_values


def sweep(**values):
    return Sweep.model_validate({"space": {"lora_r": {"choice": [8]}}} | values)


def test_rungs_double_from_the_grace_period_to_the_end():
    assert rungs(sweep(grace_steps=3, max_steps=20)) == (3, 6, 12, 20)
    assert rungs(sweep(grace_steps=4, max_steps=16)) == (4, 8, 16)
    assert rungs(sweep(grace_steps=8, max_steps=8)) == (8,)


def test_without_successive_halving_only_the_end_is_validated():
    assert rungs(sweep(scheduler="fifo", grace_steps=3, max_steps=20)) == (20,)


@given(st.integers(1, 50), st.integers(2, 5), st.integers(0, 200))
def test_rungs_rise_and_end_at_the_last_step(grace, factor, more):
    found = rungs(sweep(grace_steps=grace, reduction_factor=factor, max_steps=max(2, grace + more)))
    assert list(found) == sorted(set(found))
    assert found[-1] == max(2, grace + more)


def test_every_kind_of_domain_is_drawn_within_its_bounds():
    space = sweep(
        space={
            "learning_rate": {"loguniform": [1e-5, 1e-3]},
            "weight_decay": {"uniform": [0.0, 0.1]},
            "lora_r": {"randint": [4, 6]},
            "lr_scheduler_type": {"choice": ["linear", "cosine"]},
        }
    ).space
    for _ in range(50):
        values = {key: domain.sample() for key, domain in tune_space(space).items()}
        assert 1e-5 <= values["learning_rate"] <= 1e-3
        assert 0 <= values["weight_decay"] <= 0.1
        assert values["lora_r"] in (4, 5)
        assert values["lr_scheduler_type"] in ("linear", "cosine")
        with_values(Train(), values)


@pytest.mark.parametrize("key", ["max_length", "num_train_epochs", "eval_steps", "deepspeed"])
def test_what_trials_ignore_or_cannot_compare_is_no_part_of_a_space(key):
    with pytest.raises(ValueError, match=f"space.{key} cannot be swept: "):
        sweep(space={key: {"choice": [1]}})


def test_the_edges_of_a_space_are_its_choices_and_the_ends_of_its_ranges():
    space = {"lora_r": {"randint": [4, 6]}, "learning_rate": {"loguniform": [1e-5, 1e-3]}, "method": {"choice": ["a"]}}
    assert sweep(space=space).edges() == [
        ("lora_r", 4),
        ("lora_r", 5),
        ("learning_rate", 1e-5),
        ("learning_rate", 1e-3),
        ("method", "a"),
    ]


def test_values_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="above"):
        with_values(Train(global_batch_size=2), {"per_device_train_batch_size": 4})
