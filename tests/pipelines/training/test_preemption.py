"""Notices that a machine will be taken away."""

import time
from types import SimpleNamespace

import pytest

from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.preemption import Preemption
from tests.pipelines.training.workers import run_here


def notice(node="a", seconds=60.0):
    return SimpleNamespace(preempted_node_ids=[node], deadline_ms=(time.time() + seconds) * 1000)


def test_each_machine_is_noticed_once():
    told = [None, notice("a"), notice("a"), notice("b")]
    preemption = Preemption(lambda: told.pop(0), 0)
    found = []
    for _ in range(4):
        preemption.poll()
        found.append(preemption.noticed())
    assert found == [False, True, False, True]
    assert not preemption.noticed()


def test_the_time_that_is_left_is_told():
    preemption = Preemption(lambda: notice(seconds=30), 0)
    assert preemption.seconds_left() is None
    preemption.poll()
    assert 25 < preemption.seconds_left() <= 30


def test_rank_0_says_when_to_ask(monkeypatch):
    from pipelines.training import preemption as module

    monkeypatch.setattr(module, "POLL_S", 0.0)
    assert Preemption(notice, 0).due()
    assert not Preemption(notice, 1).due()
    assert not Preemption(None, 0).due()


@pytest.mark.cluster
def test_a_notice_brings_a_checkpoint_at_the_next_step(make_job, process_group, monkeypatch):
    from pipelines.training import preemption as module

    monkeypatch.setattr(module, "POLL_S", 0.0)
    told = [None, None, notice()]
    job = make_job("leaving", {"max_steps": 4, "eval_steps": 4})
    outcome, heard = run_here(job, 0, 1, preemption=lambda: told.pop(0) if told else notice())

    assert heard.of("preempted") == [3]
    # At the notice, and at the end as always.
    assert heard.of("checkpoint") == [3, 4]
    assert CheckpointStore(job.checkpoints).complete() == [3, 4]
    assert (outcome["status"], outcome["step"]) == ("finished", 4)
