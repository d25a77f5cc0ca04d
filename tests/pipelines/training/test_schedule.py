"""Steps and learning rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipe import Train
from pipelines.training.schedule import learning_rate, plan_steps


def train(**values):
    return Train.model_validate({"learning_rate": 1.0, "warmup_steps": 0} | values)


def test_the_last_step_of_an_epoch_may_be_short():
    assert plan_steps(train(global_batch_size=4, num_train_epochs=1), 9).steps == 3


def test_max_steps_goes_before_epochs():
    assert plan_steps(train(max_steps=5), 1000).steps == 5


def test_shares_become_steps():
    plan = plan_steps(train(global_batch_size=1, num_train_epochs=1, eval_steps=0.25, warmup_steps=0.1), 100)
    assert (plan.eval_every, plan.warmup) == (25, 10)
    assert [step for step in range(1, 101) if plan.validates(step)] == [25, 50, 75, 100]


def test_the_last_step_is_always_validated():
    assert plan_steps(train(max_steps=7, eval_steps=3), 10).validates(7)


@pytest.mark.parametrize(("course", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_courses(course, middle):
    settings = train(lr_scheduler_type=course, max_steps=10)
    plan = plan_steps(settings, 10)
    assert learning_rate(settings, plan, 0) == 1.0
    assert learning_rate(settings, plan, 5) == pytest.approx(middle)


@given(st.integers(1, 500), st.floats(0, 50), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_rate_is_above_nothing_and_never_beyond_its_peak(steps, warmup, course):
    settings = train(max_steps=steps, warmup_steps=warmup, lr_scheduler_type=course)
    plan = plan_steps(settings, 10)
    rates = [learning_rate(settings, plan, step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: plan.warmup] == sorted(rates[: plan.warmup])
