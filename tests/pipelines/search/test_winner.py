"""Who wins, and who has to prove it first."""

from dataclasses import replace

import pytest

from pipelines.search.history import Chunk, Standing, Trial
from pipelines.search.winner import choose, to_confirm, unproven_clone


def trial(name, loss, step=10, origin="search", state="finished", seconds=1.0, **more):
    chunks = [] if loss is None else [Chunk(step, loss, loss, 0.0, 99.0, "here", step_seconds=seconds)]
    return Trial(name, {"lora_r": int(name.rpartition("-")[2] or 0)}, origin, state=state, chunks=chunks, **more)


def standing(*trials, **plan):
    return Standing("s", plan, {each.trial: each for each in trials})


def test_the_lowest_loss_at_the_last_step_wins():
    assert choose(standing(trial("t-1", 2.0), trial("t-2", 1.5), trial("t-3", 1.9))).trial == "t-2"


def test_an_early_loss_is_no_rival_of_one_at_the_end():
    early = trial("t-1", 1.0, step=5, state="stopped")
    assert choose(standing(early, trial("t-2", 1.5))).trial == "t-2"


def test_a_failed_trial_or_one_without_a_number_never_wins():
    failed, lost = trial("t-1", 0.1, state="failed"), trial("t-3", float("nan"))
    assert choose(standing(failed, lost, trial("t-2", 1.5))).trial == "t-2"
    assert choose(standing(failed, lost, trial("t-4", None))) is None
    assert choose(standing()) is None


def test_a_clone_that_leads_must_be_run_from_the_base_before_it_can_win():
    clone = trial("t-2", 1.0, origin="clone", parent="t-1")
    found = standing(trial("t-1", 2.0), clone)
    assert unproven_clone(found) is clone
    assert unproven_clone(standing(trial("t-1", 2.0), replace(clone, state="stopped"))) is None
    assert choose(found).trial == "t-1"
    proven = standing(trial("t-1", 2.0), clone, trial("t-3", 1.2, origin="seed", parent="t-2"))
    assert unproven_clone(proven) is None
    assert choose(proven).trial == "t-3"


def test_further_seeds_decide_by_their_mean_and_give_an_interval():
    lucky = trial("t-1", 1.0), trial("t-3", 3.0, origin="seed", parent="t-1", seed=18)
    steady = trial("t-2", 1.5), trial("t-4", 1.7, origin="seed", parent="t-2", seed=18)
    found = choose(standing(*lucky, *steady))
    assert (found.trial, found.mean) == ("t-2", pytest.approx(1.6))
    assert found.losses == (1.5, 1.7)
    # Student's t with one degree of freedom: 12.706 times 0.1.
    assert (found.low, found.high) == (pytest.approx(1.6 - 1.2706, abs=1e-3), pytest.approx(1.6 + 1.2706, abs=1e-3))


def test_a_confirmation_that_was_broken_off_decides_nothing():
    again = trial("t-9", 1.0, origin="seed", parent="t-3", seed=18)
    found = choose(standing(trial("t-1", 1.0), trial("t-2", 1.5), trial("t-3", 2.0), again))
    assert (found.trial, found.losses, found.low) == ("t-1", (1.0,), None)


def test_a_seed_under_which_a_trial_fails_rules_it_out():
    bad = trial("t-3", None, origin="seed", parent="t-1", seed=18, state="failed")
    good = trial("t-4", 1.6, origin="seed", parent="t-2", seed=18)
    assert choose(standing(trial("t-1", 1.0), trial("t-2", 1.5), bad, good)).trial == "t-2"


def test_a_clone_that_went_furthest_keeps_nobody_else_from_winning():
    clone = trial("t-2", 1.0, step=20, origin="clone", parent="t-1", state="stopped")
    assert choose(standing(trial("t-1", 2.0), clone)).trial == "t-1"


def test_the_best_three_are_confirmed_under_each_seed_once():
    trials = [trial(f"t-{n}", float(n)) for n in range(1, 6)]
    done = trial("t-9", 1.0, origin="seed", parent="t-1", seed=18)
    wanted = [(each.trial, seed) for each, seed in to_confirm(standing(*trials, done), 2, 17)]
    assert wanted == [("t-1", 19), ("t-2", 18), ("t-2", 19), ("t-3", 18), ("t-3", 19)]
    assert to_confirm(standing(*trials), 0, 17) == []


def test_where_cost_counts_the_cheapest_of_the_best_wins():
    trials = trial("t-1", 2.0, seconds=9), trial("t-2", 2.01, seconds=3), trial("t-3", 2.5, seconds=1)
    assert choose(standing(*trials, objectives=["loss", "cost"])).trial == "t-2"
    assert choose(standing(*trials, objectives=["loss"])).trial == "t-1"
