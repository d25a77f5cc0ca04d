"""A sweep on a cluster that has no machine yet: its trials ask for them, learn on them, and leave none behind."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from pipelines.search.history import History, sweeps
from tests.pipelines.small_recipe import small_recipe  # noqa: F401
from tests.ray_head import started
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.drill]

MACHINES = {"worker": {"resources": {"CPU": 1, "object_store_memory": 100 * 2**20}, "max_workers": 2}}


def machines(head):
    """Ids of the cluster's living nodes but its head; None while the head is too busy to tell."""
    authorization = {"authorization": f"Bearer {head.token_path.read_text()}"}
    request = urllib.request.Request(f"{head.jobs_address}/api/v0/nodes?limit=100", headers=authorization)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
    except OSError:
        return None
    return {each["node_id"] for each in nodes if each["state"] == "ALIVE" and not each["is_head_node"]}


def test_trials_bring_their_machines_and_leave_none_behind(small_recipe, ray_cluster, tmp_path):  # noqa: F811
    small_recipe(
        name="scaled",
        cluster={"max_concurrent_trials": 2},
        sweep={
            "search": "grid",
            "default_trial": False,
            "max_steps": 160,
            "grace_steps": 20,
            "space": {"learning_rate": {"choice": [1e-3, 3e-3, 1e-2, 3e-2]}},
        },
    )
    with started(num_cpus=0, machines=MACHINES) as head:
        until(lambda: machines(head) == set(), "a cluster that is its head alone")
        environment = os.environ | {
            "RAY_ADDRESS": head.gcs_address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(head.token_path),
        }
        command = [sys.executable, "-m", "ui.cli", "sweep", str(tmp_path / "recipe.yaml"), "--json"]
        report, said, used = tmp_path / "report.json", tmp_path / "said.txt", []
        with report.open("wb") as out, said.open("wb") as err:
            driver = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        try:
            until(lambda: used.append(machines(head)) or driver.poll() is not None, "the sweep's end", pause_s=0.5)
        finally:
            driver.kill()
        assert driver.wait() == 0, said.read_text()[-3000:]
        assert max(len(each) for each in used if each is not None) == 2

        figures = json.loads(report.read_text())["figures"]
        assert len(figures["trials"]) == 4 and figures["winner"]["validation_loss"] > 0
        (entry,) = sweeps(ray_cluster, "scaled")
        trials = History(ray_cluster, entry.sweep, "scaled").standing().trials.values()
        assert len({chunk.place for trial in trials for chunk in trial.chunks}) >= 2, "one worker did it all"

        until(lambda: machines(head) == set(), "the end of the machines", pause_s=0.5)
