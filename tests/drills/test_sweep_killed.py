"""kill -9 of a sweep's driver at three moments: the same command goes on, and no finished trial is learnt again."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.search.history import ENDED, History, sweeps
from pipelines.search.winner import choose
from tests.pipelines.small_recipe import small_recipe  # noqa: F401
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.drill]


def section(name):
    return {
        "name": name,
        "sweep": {
            "search": "tpe",
            "num_samples": 6,
            "max_steps": 40,
            "grace_steps": 10,
            "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "lora_r": {"choice": [2, 4]}},
        },
    }


@contextmanager
def driver(recipe_path, *options):
    """`sluice sweep` on this session's Ray, in a process of its own."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "ui.cli", "sweep", str(recipe_path), "--json", *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        yield begun


def once(workspace, name, holds, process):
    """The sweep's history and standing as soon as the condition holds, while the driver lives."""

    def met():
        if known := sweeps(workspace, name):
            history = History(workspace, known[0].sweep, name)
            standing = history.standing()
            if holds(standing):
                return history, standing
        assert process.poll() is None, process.stderr.read()[-3000:]
        return None

    return until(met, "the moment to kill")


def files_of(workspace, standing):
    """Path -> (time of change, bytes) of the checkpoints of the trials that have ended."""
    ended = [trial.trial for trial in standing.trials.values() if trial.state in ENDED]
    folders = [Path(workspace.uri("sweeps", standing.sweep, name)) for name in ended]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def decisions(standing):
    """What was tried, how far, with which loss."""
    return [(trial.values, [(chunk.step, round(chunk.loss, 6)) for chunk in trial.chunks], trial.state)
            for trial in standing.trials.values()]  # fmt: skip


def test_a_killed_sweep_goes_on_three_times_and_decides_what_it_would_have(small_recipe, ray_cluster, tmp_path):  # noqa: F811
    small_recipe(**section("killed"))
    moments = (
        lambda standing: standing.trials,
        lambda standing: sum(bool(trial.chunks) for trial in standing.trials.values()) == 3,
        lambda standing: sum(trial.state in ENDED for trial in standing.trials.values()) >= 3,
    )
    for moment in moments:
        with driver(tmp_path / "recipe.yaml", "--resume") as process:
            history, standing = once(ray_cluster, "killed", moment, process)
            process.kill()
    kept, before = files_of(ray_cluster, standing), len(history.events())
    assert kept
    with driver(tmp_path / "recipe.yaml", "--resume") as process:
        once(
            ray_cluster,
            "killed",
            lambda standing: any(event.kind == "rung" for event in history.events()[before:]),
            process,
        )
        assert files_of(ray_cluster, standing).items() >= kept.items()
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]

    ended = {trial.trial for trial in standing.trials.values() if trial.state in ENDED}
    assert not any(event.trial in ended for event in history.events()[before:])
    (entry,) = sweeps(ray_cluster, "killed")
    found = history.standing()

    with driver(tmp_path / "recipe.yaml", "--fresh") as process:
        _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]
    newest = sweeps(ray_cluster, "killed")[0]
    assert newest.sweep == f"{entry.sweep}-2"
    whole = History(ray_cluster, newest.sweep, "killed").standing()
    assert decisions(found) == decisions(whole)
    winner = choose(found)
    assert json.loads(out)["figures"]["winner"]["trial"] == winner.trial == choose(whole).trial
