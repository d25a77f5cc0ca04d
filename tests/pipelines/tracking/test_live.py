"""A training's points, through outages of the tracking server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest

from pipelines.tracking import runs
from pipelines.tracking.live import LiveRun

TAGS = {"sluice.recipe": "small", "sluice.stage": "train", "sluice.key": "abc"}


def test_a_run_that_begins_while_the_server_is_away_gets_its_points_with_their_own_times(workspace, monkeypatch):
    workspace.check_storage()
    settings = workspace.settings
    real, away = runs.start_run, [True]
    monkeypatch.setattr(runs, "start_run", lambda *rest: "" if away[0] else real(*rest))
    monkeypatch.setattr(runs, "RETRY_S", 0.0)

    run = LiveRun(settings, "small-abc", TAGS, {"seed": 1})
    run.log({"train/loss": 3.0}, 1, 1_700_000_001.0)
    run.log({"train/loss": 2.0}, 2, 1_700_000_002.0)
    assert run.run_id == ""
    away[0] = False
    run.log({"train/loss": 1.0}, 3, 1_700_000_003.0)
    run.end()

    expected = [(1, 3.0, 1_700_000_001.0), (2, 2.0, 1_700_000_002.0), (3, 1.0, 1_700_000_003.0)]
    assert runs.metric_history(settings, run.run_id)["train/loss"] == expected
    assert runs.find_run(settings, run.run_id).status == "FINISHED"


def test_a_server_that_never_came_is_told_with_what_it_missed(workspace, monkeypatch, caplog):
    monkeypatch.setattr(runs, "start_run", lambda *rest: "")
    run = LiveRun(workspace.settings, "small-abc", TAGS, {})
    run.log({"train/loss": 3.0}, 1, 1.0)
    run.end("FAILED")
    assert "1 points are lost" in caplog.text


def test_points_whose_answer_was_lost_are_sent_again_and_stand_once(workspace):
    workspace.check_storage()
    settings = workspace.settings
    tracker, run = runs.Tracker(settings.tracking_uri), runs.start_run(settings, "small-abc", TAGS, {})
    real = tracker.client

    class Cut:
        """Takes the points; the answer is lost."""

        def log_batch(self, *rest, **named):
            real.log_batch(*rest, **named)
            raise ConnectionError("cut")

    tracker._client = Cut()
    tracker.log(run, {"train/loss": 2.0, "train/grad_norm": 1.0}, 1, 1_700_000_001.0)
    assert tracker.pending() == 2
    tracker._client, tracker._down_until = real, 0.0
    assert tracker.flush()

    assert [point.value for point in real.get_metric_history(run, "train/loss")] == [2.0]


def start_server(folder, port):
    """A real tracking server on loopback, in a session of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/served.db", "--default-artifact-root", str(folder)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    for _ in range(480):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return process
        except OSError:
            time.sleep(0.25)
    raise AssertionError((folder / "server.log").read_text())


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.drill
def test_a_server_killed_in_the_middle_has_every_point_once_when_it_is_back(
    workspace, empty_tracking, tmp_path, monkeypatch
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(empty_tracking, tmp_path / "served.db")
    settings = replace(workspace.settings, tracking_uri=f"http://127.0.0.1:{port}")
    monkeypatch.setattr(runs, "RETRY_S", 2.0)
    begun = 1_700_000_000.0
    server = start_server(tmp_path, port)
    try:
        run = LiveRun(settings, "small-abc", TAGS, {"seed": 1})
        for step in range(1, 25):
            if step == 11:
                kill(server)
            if step == 15:
                server = start_server(tmp_path, port)
                time.sleep(runs.RETRY_S)
            run.log({"train/loss": 1.0 / step, "train/grad_norm": 1.0 * step}, step, begun + step)
        run.end()
        client = runs.tracker(settings).client
        for name, value in (("train/loss", lambda step: 1.0 / step), ("train/grad_norm", lambda step: 1.0 * step)):
            points = client.get_metric_history(run.run_id, name)
            assert sorted((p.step, p.value, p.timestamp) for p in points) == [
                (step, value(step), round((begun + step) * 1000)) for step in range(1, 25)
            ]
        assert runs.find_run(settings, run.run_id).status == "FINISHED"
    finally:
        kill(server)
