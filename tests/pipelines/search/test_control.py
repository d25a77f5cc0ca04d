"""A sweep at work on real workers and a tiny model: turns, rungs, requests, faults, and what is left behind."""

import os
import signal
from dataclasses import replace

import pytest

from cluster.errors import StageFailed, UserError
from pipelines.search.history import ENDED, History, Trial
from pipelines.search.trials import trial_job
from pipelines.search.winner import choose
from pipelines.training.checkpoints import CheckpointStore
from tests.pipelines.search.sweeping import RATES, Sweeping, sweep_section
from tests.pipelines.small_recipe import small_recipe  # noqa: F401
from tests.waiting import until

pytestmark = pytest.mark.cluster


def test_twenty_trials_two_at_a_time_end_and_leave_nothing_reserved(small_recipe, ray_cluster):  # noqa: F811
    import ray

    before = ray.available_resources()
    space = {"learning_rate": {"choice": RATES}, "lora_r": {"choice": [2, 3, 4, 5]}}
    recipe = small_recipe(name="twenty", sweep=sweep_section(space=space))
    standing = Sweeping(recipe, ray_cluster, concurrent=2).run()

    assert len(standing.trials) == 20
    assert all(trial.state in ENDED for trial in standing.trials.values())
    went = [sum(trial.step >= rung for trial in standing.trials.values()) for rung in standing.rungs]
    # Halved at each rung; of the last two both go to the end.
    assert (standing.rungs, went) == ((2, 4, 8), [20, 10, 5])
    assert len({chunk.place for trial in standing.trials.values() for chunk in trial.chunks}) == 2
    # More, where what was before it had not all gone.
    until(lambda: ray.available_resources().get("CPU", 0) >= before["CPU"], "the end of what was reserved")
    groups = ray.util.placement_group_table().values()
    assert all(group["state"] == "REMOVED" for group in groups)


def test_a_trial_among_others_learns_what_it_learns_alone(small_recipe, ray_cluster):  # noqa: F811
    recipe = small_recipe(name="turns", sweep=sweep_section(scheduler="median", grace_steps=3, max_steps=9))
    together = Sweeping(recipe, ray_cluster).run()
    alone = small_recipe(
        name="turns",
        sweep=sweep_section(scheduler="median", grace_steps=3, max_steps=9)
        | {"space": {"learning_rate": {"choice": [RATES[3]]}}},
    )
    single = Sweeping(alone, ray_cluster)
    single.history = History(ray_cluster, "turns-sweep-alone", "turns")
    single.shared = replace(single.shared, checkpoints=single.shared.checkpoints + "-alone")
    (lonely,) = single.run().trials.values()
    shared = next(trial for trial in together.trials.values() if trial.values == lonely.values)
    assert [(c.step, c.loss) for c in shared.chunks] == [(c.step, c.loss) for c in lonely.chunks][: len(shared.chunks)]
    assert shared.chunks


def test_people_pause_resume_stop_clone_add_and_extend_a_sweep_that_runs(small_recipe, ray_cluster):  # noqa: F811
    section = sweep_section(
        search="random", num_samples=2, scheduler="median", grace_steps=5, max_steps=400, max_hours=1.0
    )
    with Sweeping(small_recipe(name="steered", sweep=section), ray_cluster) as sweeping:
        sweeping.until(lambda standing: len(standing.trials) == 2 and all(t.chunks for t in standing.trials.values()))
        assert sweeping.ask("pause", "trial-1") == ""
        paused = sweeping.history.standing().trials["trial-1"]
        sweeping.until(lambda standing: standing.trials["trial-2"].step >= paused.step + 20)
        # What was under way when it was paused still arrives, and then nothing.
        assert sweeping.history.standing().trials["trial-1"].step <= paused.step + 10
        assert sweeping.ask("resume", "trial-1") == ""
        sweeping.until(lambda standing: standing.trials["trial-1"].step >= paused.step + 15)

        assert sweeping.ask("clone", "trial-2", values={"learning_rate": 1e-4}) == ""
        standing = sweeping.until(lambda standing: standing.trials["trial-3"].chunks)
        clone, parent = standing.trials["trial-3"], standing.trials["trial-2"]
        assert (clone.origin, clone.parent) == ("clone", "trial-2")
        begun = clone.chunks[0]
        assert begun.step > 0
        assert begun.loss == pytest.approx(parent.loss_at(begun.step), abs=1e-5), "it starts from its parent's loss"

        assert sweeping.ask("add", values={"learning_rate": 1e-2, "lora_r": 2}) == ""
        assert "above" in sweeping.ask("add", values={"per_device_train_batch_size": 64})
        assert sweeping.ask("extend", trials=1, hours=0.5) == ""
        standing = sweeping.history.standing()
        assert (standing.plan["num_samples"], standing.plan["max_hours"]) == (3, 1.5)
        assert "no max_cost" in sweeping.ask("extend", cost=3)
        assert sweeping.ask("stop", "trial-1") == ""
        sweeping.stop_all()
    standing = sweeping.history.standing()
    assert [trial.origin for trial in standing.trials.values()].count("search") == 3
    assert standing.trials["trial-1"].because == "by Ada"
    with pytest.raises(UserError, match="is over"):
        sweeping.history.ask("add", values={"lora_r": 4})


def test_a_worker_that_is_killed_is_replaced_and_its_trials_go_on(small_recipe, ray_cluster):  # noqa: F811
    section = sweep_section(scheduler="median", grace_steps=5, max_steps=30)
    with Sweeping(small_recipe(name="struck", sweep=section), ray_cluster) as sweeping:
        standing = sweeping.until(lambda standing: all(t.chunks for t in standing.trials.values()) and standing.trials)
        place = next(iter(standing.trials.values())).chunks[0].place
        os.kill(int(place.rpartition(" ")[2]), signal.SIGKILL)
    standing = sweeping.history.standing()
    assert sum(trial.deaths for trial in standing.trials.values()) == 1
    assert sum(trial.retries for trial in standing.trials.values()) == 0
    assert not any(trial.state == "failed" for trial in standing.trials.values())
    assert len({chunk.place for trial in standing.trials.values() for chunk in trial.chunks}) == 2


def test_of_two_drivers_the_later_goes_on_and_the_earlier_says_so(small_recipe, ray_cluster):  # noqa: F811
    section = sweep_section(scheduler="median", grace_steps=5, max_steps=30)
    recipe = small_recipe(name="contested", sweep=section)
    earlier, later = Sweeping(recipe, ray_cluster), Sweeping(recipe, ray_cluster)
    with pytest.raises(StageFailed, match="Another driver took up contested-sweep-0"), earlier:
        earlier.until(lambda standing: all(t.chunks for t in standing.trials.values()) and standing.trials)
        with later:
            pass
        earlier.thread.join(60)
        raise earlier.error
    standing = later.history.standing()
    assert standing.closed == "all trials have ended"
    assert not any(trial.state == "failed" for trial in standing.trials.values()) and choose(standing)
    events = later.history.events()
    taken_up = [event.id for event in events if event.kind == "opened"][1]
    # Who lost it decides nothing more: each trial ends once.
    assert len([e for e in events if e.kind == "ended"]) == len(standing.trials)
    assert [e for e in events if e.kind == "rung" and e.id > taken_up]


def test_what_breaks_twice_is_recorded_with_its_cause_and_the_others_go_on(
    small_recipe,  # noqa: F811
    ray_cluster,
    monkeypatch,
):
    recipe = small_recipe(name="breaking", sweep=sweep_section())
    sweeping = Sweeping(recipe, ray_cluster)
    # A place in which no checkpoint can be written: it breaks in the loop itself.
    blocked = sweeping.workspace.uri("sweeps", sweeping.name, "trial-2")
    os.makedirs(os.path.dirname(blocked), exist_ok=True)
    with open(blocked, "w") as stream:
        stream.write("in the way")
    standing = sweeping.run()
    broken = standing.trials["trial-2"]
    assert (broken.state, broken.retries) == ("failed", 1)
    assert broken.because
    assert choose(standing).trial != "trial-2"


def test_a_budget_of_time_ends_the_search_and_says_so(small_recipe, ray_cluster):  # noqa: F811
    section = sweep_section(scheduler="fifo", max_steps=4000, max_hours=0.002)
    standing = Sweeping(small_recipe(name="brief", sweep=section), ray_cluster).run()
    assert standing.closed == "sweep.max_hours 0.002 was spent"
    assert all(trial.state == "stopped" for trial in standing.trials.values())


def test_the_best_are_confirmed_under_further_seeds(small_recipe, ray_cluster):  # noqa: F811
    section = sweep_section(
        scheduler="fifo", max_steps=6, confirm_seeds=1, space={"learning_rate": {"choice": [1e-3, 5e-3]}}
    )
    standing = Sweeping(small_recipe(name="proven", sweep=section), ray_cluster).run()
    winner = choose(standing)
    assert len(winner.losses) == 2 and winner.losses[0] != winner.losses[1]
    assert winner.low < winner.mean < winner.high
    assert [trial.seed for trial in standing.trials.values()] == [None, None, 18, 18]


def test_under_another_seed_a_trial_is_measured_on_the_same_examples(small_recipe, ray_cluster):  # noqa: F811
    sweeping = Sweeping(small_recipe(name="seeds", sweep=sweep_section()), ray_cluster)
    job = trial_job(sweeping.shared, Trial("trial-9", {}, "seed", "trial-1", seed=18))
    assert (job.seed, job.validation_seed) == (18, 17)
    assert job.checkpoints == CheckpointStore(f"{sweeping.shared.checkpoints}/trial-9").address


def test_a_clone_that_leads_at_its_end_is_run_from_the_base(small_recipe, ray_cluster):  # noqa: F811
    space = {"learning_rate": {"choice": [1e-5]}}
    section = sweep_section(scheduler="median", grace_steps=20, max_steps=160, space=space)
    with Sweeping(small_recipe(name="proven-again", sweep=section), ray_cluster) as sweeping:
        sweeping.until(lambda standing: standing.trials and standing.trials["trial-1"].chunks)
        assert sweeping.ask("clone", "trial-1", values={"learning_rate": 1e-2}) == ""
    standing = sweeping.history.standing()
    proof = next(trial for trial in standing.trials.values() if trial.origin == "seed")
    assert (proof.parent, proof.seed, proof.values) == ("trial-2", None, {"learning_rate": 1e-2})
    assert proof.step == 160 and choose(standing).trial == proof.trial


def test_values_that_contradict_each_other_fail_alone(small_recipe, ray_cluster):  # noqa: F811
    space = {"per_device_train_batch_size": {"choice": [2, 4]}, "global_batch_size": {"choice": [2, 4]}}
    standing = Sweeping(small_recipe(name="at-odds", sweep=sweep_section(space=space)), ray_cluster).run()
    failed = [trial for trial in standing.trials.values() if trial.state == "failed"]
    assert [trial.values for trial in failed] == [{"per_device_train_batch_size": 4, "global_batch_size": 2}]
    assert "above" in failed[0].because and choose(standing)
