"""When trials are validated, and which of them go on."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipe import Sweep
from pipelines.search.schedulers import rungs, stops


def sweep(**values):
    return Sweep.model_validate(values)


def curves(step, *losses):
    return {f"trial-{number}": [(step, loss)] for number, loss in enumerate(losses, start=1)}


def test_rungs_multiply_from_the_grace_period_to_the_end():
    assert rungs(sweep(grace_steps=3, max_steps=20)) == (3, 6, 12, 20)
    assert rungs(sweep(grace_steps=4, max_steps=16)) == (4, 8, 16)
    assert rungs(sweep(grace_steps=8, max_steps=8)) == (8,)
    assert rungs(sweep(grace_steps=3, max_steps=20, reduction_factor=4)) == (3, 12, 20)


def test_the_median_rule_looks_after_every_grace_period():
    assert rungs(sweep(scheduler="median", grace_steps=4, max_steps=12)) == (4, 8, 12)
    assert rungs(sweep(scheduler="median", grace_steps=5, max_steps=12)) == (5, 10, 12)


def test_without_a_scheduler_only_the_end_is_validated():
    assert rungs(sweep(scheduler="fifo", grace_steps=3, max_steps=20)) == (20,)


@given(st.integers(1, 50), st.integers(2, 5), st.integers(0, 200), st.sampled_from(["asha", "median"]))
def test_rungs_rise_and_end_at_the_last_step(grace, factor, more, scheduler):
    most = max(2, grace + more)
    found = rungs(sweep(grace_steps=grace, reduction_factor=factor, max_steps=most, scheduler=scheduler))
    assert list(found) == sorted(set(found))
    assert found[-1] == most


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=30), st.integers(2, 5))
def test_halving_keeps_one_in_so_many_and_they_are_the_best(losses, factor):
    setting, there = sweep(reduction_factor=factor), curves(8, *losses)
    kept = [name for name in there if not stops(setting, name, 8, there)]
    assert len(kept) == -(-len(losses) // factor)
    worst = max(dict(there[name])[8] for name in kept)
    assert sum(loss < worst for loss in losses) < len(kept)


def test_a_trial_that_comes_late_is_compared_with_all_that_were_there():
    there = curves(8, 3.0, 2.0, 2.5, 4.0) | {"trial-5": [(4, 1.0)]}
    assert "place 3 of 4 at step 8, 2 went on" in stops(sweep(), "trial-1", 8, there)
    assert stops(sweep(), "trial-3", 8, there) == ""


def test_the_median_rule_stops_what_is_behind_the_middle_and_needs_three_others():
    setting = sweep(scheduler="median")
    assert stops(setting, "trial-1", 8, curves(8, 5.0, 2.0, 3.0)) == ""
    there = curves(8, 5.0, 2.0, 3.0, 4.0)
    assert "the middle of 3 others is 3.0000" in stops(setting, "trial-1", 8, there)
    assert stops(setting, "trial-3", 8, there) == ""
    # A clone that began later says nothing about these steps.
    assert stops(setting, "trial-1", 8, curves(8, 5.0, 2.0, 3.0) | {"trial-4": [(12, 1.0)]}) == ""


def test_at_the_end_and_without_a_scheduler_nobody_is_stopped():
    there = curves(32, 5.0, 2.0, 3.0)
    assert stops(sweep(), "trial-1", 32, there) == ""
    assert stops(sweep(scheduler="fifo"), "trial-1", 8, curves(8, 5.0, 2.0)) == ""
