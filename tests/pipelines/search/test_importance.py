import pytest

from pipelines.recipe import Train
from pipelines.search.history import fold
from pipelines.search.importance import importance
from tests.pipelines.search.planted import Story, halving, plan


def folded(story):
    return fold(story.sweep, story.events)


def conditional(with_rank, trials=20):
    space = {"learning_rate": {"loguniform": [1e-5, 1e-3]}, "lora_r": {"choice": [8, 32], "when": {"method": ["lora"]}}}
    story = Story()
    story.add("opened", **plan(space=space))
    for number in range(trials):
        values = {"learning_rate": 10 ** (-5 + 2 * ((number * 7) % trials) / trials)}
        if number < with_rank:
            values["lora_r"] = (8, 32)[number % 2]
        story.add("proposed", f"trial-{number}", values=values, origin="search")
        loss = 2 + 0.1 * values["learning_rate"] * 1000 + (values.get("lora_r", 0) == 32)
        story.rung(f"trial-{number}", 8, loss)
    return folded(story)


def test_the_key_that_decides_is_found_and_the_shares_add_up():
    found = importance(folded(halving(trials=40)))
    assert next(iter(found.shares)) == "learning_rate" and found.shares["learning_rate"] > 0.7
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == {"learning_rate", "warmup_steps", "lora_r"} and not found.because


def test_it_is_the_same_each_time():
    assert importance(folded(halving(trials=20))) == importance(folded(halving(trials=20)))


def test_losses_are_compared_at_the_furthest_step_that_enough_reached():
    found = importance(folded(halving(trials=40)))
    assert found.step == 32 and found.trials == 10
    # The recipe's own trial has no values on record here.
    assert importance(folded(halving(trials=17))).step == 16
    assert importance(folded(halving(trials=12))).step == 8


def test_too_few_trials_are_a_sentence():
    found = importance(folded(halving(trials=5)))
    assert found.shares == {} and found.because == "8 trials have to reach the same step first; 4 have."


def test_the_recipes_own_values_count_where_they_are_known():
    train = Train(learning_rate=2e-5, lora_r=8, warmup_steps=0.0).model_dump(mode="json")
    assert importance(folded(halving(trials=12, train=train))).trials == 12
    assert importance(folded(halving(trials=12))).trials == 11


def test_a_key_that_only_some_trials_have_is_judged_among_these_and_this_is_said():
    found = importance(conditional(with_rank=10))
    assert found.notes == ("lora_r is judged among the 10 trials that have it",)
    assert found.shares["lora_r"] > 0.3


def test_a_key_that_too_few_trials_have_is_left_out_and_this_is_said():
    found = importance(conditional(with_rank=5))
    assert found.notes == ("lora_r is left out: 5 of 20 trials have it",) and set(found.shares) == {"learning_rate"}


def test_equal_losses_have_no_importance():
    story = Story()
    story.add("opened", **plan())
    for number in range(10):
        values = {"learning_rate": 1e-4 * (number + 1) / 2, "warmup_steps": 0, "lora_r": 8}
        story.add("proposed", f"trial-{number}", values=values, origin="search")
        story.rung(f"trial-{number}", 8, 2.0)
    assert importance(folded(story)).because == "All losses are the same."


def test_trials_with_values_outside_the_space_do_not_count_and_this_is_said():
    story = halving(trials=12)
    story.add("proposed", "trial-13", values={"learning_rate": 0.5, "warmup_steps": 0, "lora_r": 8}, origin="added")
    story.rung("trial-13", 8, 11.0)
    found = importance(folded(story))
    assert found.shares == importance(folded(halving(trials=12))).shares
    assert found.notes == ("1 left out: values outside the space",)
