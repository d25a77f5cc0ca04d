"""Tracked runs: written, read back, and kept through an outage."""

import socket
import subprocess
import sys

import pytest

from pipelines.tracking import runs

TAGS = {"sluice.recipe": "small", "sluice.stage": "train", "sluice.key": "abc"}


@pytest.fixture
def settings(workspace):
    return workspace.settings


@pytest.fixture
def workspace(workspace):
    workspace.check_storage()
    return workspace


def test_metrics_come_back_by_step(settings):
    run = runs.start_run(settings, "small-abc", TAGS, {"learning_rate": 1e-3})
    for step in (1, 2, 3):
        runs.log_metrics(settings, run, {"train/loss": 3.0 - step, "train/learning_rate": 1e-3}, step)
    runs.end_run(settings, run)

    history = runs.metric_history(settings, run)
    assert [(step, value) for step, value, _ in history["train/loss"]] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert all(at > 1.6e9 for _, _, at in history["train/loss"])

    [summary] = runs.list_runs(settings, "small")
    assert (summary.run_id, summary.name, summary.stage, summary.status) == (run, "small-abc", "train", "FINISHED")
    assert summary.metrics["train/loss"] == 0.0
    assert summary.params["learning_rate"] == "0.001"
    assert summary.ended_at >= summary.started_at
    assert runs.list_runs(settings, "other") == []


def test_a_resumed_run_is_the_same_run_and_a_repeated_step_keeps_its_last_value(settings):
    first = runs.start_run(settings, "small-abc", TAGS, {})
    runs.log_metrics(settings, first, {"train/loss": 2.0}, 1)
    runs.end_run(settings, first, "FAILED")
    second = runs.start_run(settings, "small-abc", TAGS, {})
    runs.log_metrics(settings, second, {"train/loss": 1.0}, 1)

    assert second == first
    assert [value for _, value, _ in runs.metric_history(settings, first)["train/loss"]] == [1.0]


def test_a_finished_run_is_not_continued(settings):
    first = runs.start_run(settings, "small-abc", TAGS, {})
    runs.end_run(settings, first)
    assert runs.start_run(settings, "small-abc", TAGS, {}) != first


def test_runs_below_another_that_nobody_goes_on_with_are_ended_and_the_others_left(settings):
    parent = runs.start_run(settings, "small-sweep-abc", TAGS | {"sluice.stage": "sweep"}, {})
    below = {
        name: runs.start_run(settings, name, TAGS | {"sluice.key": name, "mlflow.parentRunId": of}, {})
        for name, of in (("left", parent), ("failed", parent), ("elsewhere", "0" * 32))
    }
    runs.end_run(settings, below["failed"], "FAILED")

    runs.end_children(settings, parent)

    states = {run.name: run.status for run in runs.list_runs(settings, "small")}
    assert states == {
        "left": "FINISHED",
        "failed": "FAILED",
        "elsewhere": "RUNNING",
        "small-sweep-abc": "RUNNING",
    }


def test_an_outage_delays_points_and_loses_none(settings):
    tracker = runs.Tracker(settings.tracking_uri)
    run = runs.start_run(settings, "small-abc", TAGS, {})
    real = tracker.client

    class Away:
        def __getattr__(self, name):
            raise ConnectionError("away")

    tracker._client = Away()
    for step in (1, 2, 3):
        tracker.log(run, {"train/loss": float(step)}, step)
    tracker.end(run, "FINISHED")
    assert tracker.pending() == 3

    tracker._client, tracker._down_until = real, 0.0
    assert tracker.flush()

    assert tracker.pending() == 0
    assert [step for step, _, _ in runs.metric_history(settings, run)["train/loss"]] == [1, 2, 3]
    assert runs.list_runs(settings)[0].status == "FINISHED"


def test_while_the_server_is_away_nobody_waits_for_it_at_each_step(settings):
    tracker = runs.Tracker(settings.tracking_uri)
    asked = []

    class Away:
        def log_batch(self, *_, **__):
            asked.append(1)
            raise ConnectionError("away")

    tracker._client = Away()
    for step in range(50):
        tracker.log("run", {"train/loss": 1.0}, step)
    assert len(asked) == 1
    assert tracker.pending() == 50


def test_without_a_server_training_goes_on_untracked(settings):
    from dataclasses import replace

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = replace(settings, tracking_uri=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert runs.start_run(away, "small-abc", TAGS, {}) == ""
    runs.log_metrics(away, "", {"train/loss": 1.0}, 1)
    runs.end_run(away, "")


def test_a_name_that_is_no_recipe_finds_nothing(settings):
    runs.start_run(settings, "small-abc", TAGS, {})
    assert runs.list_runs(settings, "x' or 1=1 --") == []


def test_a_deleted_run_does_not_keep_the_others_waiting_and_its_loss_is_told(settings, caplog):
    tracker = runs.Tracker(settings.tracking_uri)
    deleted = runs.start_run(settings, "small-abc", TAGS, {})
    other = runs.start_run(settings, "small-def", TAGS | {"sluice.key": "def"}, {})
    tracker.client.delete_run(deleted)
    for step in (1, 2):
        tracker.log(deleted, {"train/loss": 1.0}, step)
        tracker.log(other, {"train/loss": 1.0}, step)
    tracker.end(other, "FINISHED")

    assert len(runs.metric_history(settings, other)["train/loss"]) == 2
    assert runs.find_run(settings, other).status == "FINISHED"
    assert tracker.pending() == 2
    assert tracker.close() == 2
    assert "2 points of 1 runs are lost" in caplog.text


@pytest.mark.slow
def test_a_process_that_ends_in_an_outage_says_what_it_could_not_send(workspace):
    program = (
        "import sys; from cluster.settings import Settings; from pipelines.tracking import runs\n"
        "settings = Settings.from_environment(); runs.tracker(settings)._client = object()\n"
        "runs.log_metrics(settings, 'run', {'train/loss': 1.0}, 1)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "1 points of 1 runs are lost" in ended.stderr
