"""The recipe's own rules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pipelines.recipe import BaseModelChoice, DeepSpeed, Recipe, Sweep, Train
from pipelines.recipe_data import Split
from pipelines.section import nearest


def recipe(**sections):
    return Recipe.model_validate({"name": "r", "dataset": {"source": "x"}, "models": [{"base": "a/b"}]} | sections)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 3


@pytest.mark.parametrize("key", ["learning_rate", "num_train_epochs", "max_grad_norm", "adam_epsilon", "lora_alpha"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0])
def test_rates_and_sizes_must_be_positive_and_finite(key, value):
    with pytest.raises(ValidationError) as caught:
        Train.model_validate({key: value})
    assert caught.value.errors()[0]["loc"] == (key,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
@pytest.mark.parametrize("key", ["warmup_steps", "weight_decay", "early_stopping_threshold"])
def test_amounts_may_be_zero_but_not_negative_or_endless(key, value):
    with pytest.raises(ValidationError):
        Train.model_validate({key: value})
    assert getattr(Train.model_validate({key: 0}), key) == 0


@pytest.mark.parametrize("size", [0, -2, 3, 12, 1.5])
def test_batch_sizes_are_powers_of_two(size):
    with pytest.raises(ValidationError):
        Train.model_validate({"global_batch_size": size})


def test_a_batch_size_that_is_no_power_of_two_names_its_neighbours():
    with pytest.raises(ValidationError, match="must be a power of two: 8 or 16"):
        Train.model_validate({"global_batch_size": 12})


def test_a_global_batch_that_the_workers_cannot_share_is_refused():
    with pytest.raises(ValidationError, match=r"global_batch_size 16 is not divisible by .* = 24"):
        recipe(train={"global_batch_size": 16, "per_device_train_batch_size": 8}, cluster={"num_workers": 3})
    assert recipe(train={"global_batch_size": 16, "per_device_train_batch_size": 8}, cluster={"num_workers": 2})


def test_the_learning_rate_defaults_to_the_methods_usual_one():
    assert Train().peak_learning_rate == 2e-4
    assert Train(method="full").peak_learning_rate == 2e-5
    assert Train(method="full", learning_rate=1e-5).peak_learning_rate == 1e-5
    assert Train(method="qlora").peak_learning_rate == 2e-4
    assert (Train(objective="dpo").peak_learning_rate, Train(objective="orpo", method="full").peak_learning_rate) == (
        1e-5,
        1e-6,
    )


def test_offloading_needs_a_zero_stage():
    with pytest.raises(ValidationError, match="needs stage 1 or above"):
        DeepSpeed(offload_optimizer="cpu")
    assert DeepSpeed(offload_optimizer="cpu", stage=2).stage == 2


@pytest.mark.parametrize(
    ("deepspeed", "problem"),
    [
        ({"stage": 2, "offload_param": "cpu"}, "offload_param needs stage 3"),
        ({"stage": 2, "offload_optimizer": "nvme", "nvme_path": "/fast"}, "nvme needs stage 3"),
        ({"stage": 3, "offload_optimizer": "nvme"}, "needs nvme_path"),
        ({"stage": 3, "offload_optimizer": "cpu", "nvme_path": "/fast"}, "no use unless"),
    ],
)
def test_an_offload_that_deepspeed_could_not_do_is_refused(deepspeed, problem):
    with pytest.raises(ValidationError, match=problem):
        DeepSpeed.model_validate(deepspeed)


def test_everything_may_wait_elsewhere_at_stage_3():
    assert DeepSpeed(stage=3, offload_optimizer="nvme", offload_param="nvme", nvme_path="/fast").nvme_path == "/fast"
    assert DeepSpeed(stage=3, offload_optimizer="cpu", offload_param="cpu").nvme_path is None


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        ({"method": "full", "use_dora": True}, "method full has none"),
        ({"method": "full", "use_rslora": True}, "method full has none"),
        ({"use_dora": True, "deepspeed": {"stage": 3}}, "a weight's length cannot be taken"),
        ({"method": "qlora", "deepspeed": {"stage": 3}}, "weights in 4 bits are not sharded"),
        ({"torch_compile": True, "deepspeed": {"stage": 3}}, "stage 3 gathers weights inside the layers"),
    ],
)
def test_methods_that_exclude_each_other_are_refused(train, problem):
    with pytest.raises(ValidationError, match=problem):
        Train.model_validate(train)


def test_preferences_are_not_learnt_from_data_that_holds_none():
    with pytest.raises(ValidationError, match=r"train.objective dpo learns from preference pairs.*is alpaca"):
        recipe(dataset={"source": "x", "format": "alpaca"}, train={"objective": "dpo"})
    for form in ("auto", "preference"):
        assert recipe(dataset={"source": "x", "format": form}, train={"objective": "orpo"}).train.learns_from_pairs


@pytest.mark.parametrize("key", ["objective", "beta"])
def test_what_scales_the_loss_is_not_swept(key):
    with pytest.raises(ValidationError, match="not comparable"):
        Sweep(space={key: {"choice": [Train.model_fields[key].default]}})


@pytest.mark.parametrize(
    "name", ["a/b", "..", "../up", "A", "name with spaces", "x;rm", "\N{PILE OF POO}", "a" * 300, "", "-a", "a-", "ä"]
)
def test_names_that_could_mean_something_else_are_refused(name):
    with pytest.raises(ValidationError):
        recipe(name=name)


@pytest.mark.parametrize("base", ["../secret", "a/../b", "a b", "a;b", "$(x)", "a\nb", "b" * 300, ""])
def test_bases_that_are_no_plain_names_are_refused(base):
    with pytest.raises(ValidationError):
        BaseModelChoice(base=base)


def test_exactly_one_base_model_is_named():
    for models in ([], [{"base": "a/b"}, {"base": "a/c"}]):
        with pytest.raises(ValidationError):
            recipe(models=models)


@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_the_shares_of_a_split_add_up_to_one(train, validation):
    test = 1 - train - validation
    if test > 0:
        assert Split(train=train, validation=validation, test=test)
    else:
        with pytest.raises(ValidationError):
            Split(train=train, validation=validation, test=0.1)


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({}, "space is empty"),
        ({"learning_rat": {"choice": [1e-4]}}, "space.learning_rat is no key of train; did you mean learning_rate?"),
        ({"lora_r": {"choice": []}}, "choice needs a list"),
        ({"learning_rate": {"loguniform": [1e-3, 1e-4]}}, "low below high"),
        ({"weight_decay": {"loguniform": [0, 0.1]}}, "needs a low above 0"),
        ({"lora_r": {"randint": [1.5, 8]}}, "whole numbers"),
        ({"learning_rate": {"uniform": [1e-4, 1e-3], "choice": [1e-4]}}, "exactly one of"),
        ({"learning_rate": {"normal": [0, 1]}}, "loguniform"),
    ],
)
def test_a_search_space_that_would_fail_a_trial_is_refused_at_once(space, problem):
    with pytest.raises(ValidationError, match=problem.replace("?", r"\?")):
        Sweep(space=space)


def test_every_field_is_described_where_it_is_defined():
    undescribed = []
    sections = [Recipe]
    while sections:
        section = sections.pop()
        for name, field in section.model_fields.items():
            inner = field.default if isinstance(field.default, BaseModel) else None
            if inner is not None:
                sections.append(type(inner))
            elif not section.meanings().get(name) and name not in ("dataset", "sweep", "experiment"):
                undescribed.append(f"{section.__name__}.{name}")
        assert section.__doc__
    assert undescribed == []


def test_the_nearest_word_is_suggested_and_no_far_one():
    assert nearest("learing_rate", Train.model_fields) == "; did you mean learning_rate?"
    assert nearest("zzz", Train.model_fields) == ""


def test_signs_of_a_damaged_encoding_are_no_share():
    from pipelines.recipe_data import Anomalies

    assert Anomalies(encoding=2.0).encoding == 2.0
    for wrong in (-0.1, float("inf")):
        with pytest.raises(ValidationError):
            Anomalies(encoding=wrong)


@pytest.mark.parametrize("name", ["../elsewhere", "a b", ""])
def test_names_of_tokenizers_are_as_plain_as_those_of_bases(name):
    from pipelines.recipe_data import Audit

    with pytest.raises(ValidationError):
        Audit(tokenizers=(name,))
