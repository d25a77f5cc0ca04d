"""Divergence: which loss is a spike, and which batch did it."""

from functools import reduce

import pytest

from pipelines.training.divergence import Spike


def after(losses, factor=3.0, patience=3):
    return reduce(lambda state, pair: state.after(*pair), enumerate(losses, 1), Spike(factor, patience))


FALLING = [3.0, 2.8, 2.6, 2.4, 2.2, 2.0, 1.8, 1.6, 1.5]


def test_a_loss_that_stays_above_its_running_median_is_a_divergence_and_knows_where_it_began():
    assert not after([*FALLING, 9.0, 9.0]).exhausted
    state = after([*FALLING, 9.0, 9.5, 9.0])
    assert state.exhausted
    assert (state.since, state.steps, state.median) == (10, 3, 2.2)


def test_a_spike_that_passes_is_none():
    assert not after([*FALLING, 9.0, 9.0, 1.4, 9.0, 9.0]).exhausted


def test_many_times_next_to_nothing_is_no_divergence():
    assert not after([3.0, *[0.01] * 20, 0.5, 0.6, 0.5, 0.5]).exhausted


def test_without_a_factor_or_a_median_nothing_is_a_spike():
    assert not after([*FALLING, *[99.0] * 20], factor=None).exhausted
    assert not after([1.0, 99.0, 99.0, 99.0]).exhausted


def test_the_state_travels_as_plain_values():
    from dataclasses import asdict

    state = after([*FALLING, 9.0])
    assert Spike.of(asdict(state)) == state


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("every", [1, 4])
def test_a_loss_that_is_no_number_names_its_micro_batch_and_examples_however_rarely_it_is_read(
    make_job, run, monkeypatch, every
):
    from pipelines.training import objectives, worker

    settings = {"max_steps": 8, "eval_steps": 8, "global_batch_size": 4, "packing": False, "logging_steps": every}
    job = make_job(f"lost-{every}", settings)
    passes, fed = [], []
    real_add = worker.Readings.add

    def add(self, done, loss, tokens):
        passes.append(done)
        # The second pass of the third step.
        real_add(self, done, loss * float("nan") if len(passes) == 10 else loss, tokens)

    monkeypatch.setattr(worker.Readings, "add", add)
    real_sums = objectives.Supervised.sums

    def sums(self, engine, side, numbers):
        fed.append([example for number in numbers for example in side.read(number).ids])
        return real_sums(self, engine, side, numbers)

    monkeypatch.setattr(objectives.Supervised, "sums", sums)
    outcome, heard = run(job)

    assert outcome["status"] == "failed"
    [culprit] = fed[9]
    assert f"diverged at step 3: the loss of micro-batch 2 of worker 0 (examples {culprit})" in outcome["message"]
    assert heard.of("step") == ([1, 2] if every == 1 else [])
    assert heard.of("checkpoint") == []


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_a_lasting_spike_ends_the_run_and_names_the_step_that_it_began_at(make_job, run, monkeypatch):
    from pipelines.training import worker

    settings = {"max_steps": 30, "eval_steps": 30, "divergence_factor": 2.0, "divergence_steps": 3}
    real = worker.learning_rate
    # From the tenth step on the rate throws the weights about.
    monkeypatch.setattr(
        worker, "learning_rate", lambda train, plan, step: 30.0 if step >= 9 else real(train, plan, step)
    )
    outcome, heard = run(make_job("spike", settings | {"method": "full", "learning_rate": 1e-3}))

    assert outcome["status"] == "failed"
    assert "2 times its running median" in outcome["message"]
    assert "That began at step" in outcome["message"] and "example-0" in outcome["message"]
    assert 12 <= heard.of("step")[-1] < 30


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_reading_every_fourth_step_learns_the_same_and_tells_less_often(make_job, run):
    settings = {"max_steps": 6, "eval_steps": 3}
    each, heard_each = run(make_job("each", settings))
    fourth, heard = run(make_job("fourth", settings | {"logging_steps": 4}))

    assert fourth["history"] == each["history"]
    # And whenever something is decided by the figures.
    assert heard.of("step") == [3, 4, 6]
    told, all_told = heard.of("step", "loss"), heard_each.of("step", "loss")
    assert min(all_told[:3]) < told[0] < max(all_told[:3])
    assert fourth["tokens"] == each["tokens"]
