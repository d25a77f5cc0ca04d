"""A Ray head of its own, started as an operator would: with a token, on its own ports, beside whatever else runs."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.connect import ROOT, STARTS, protect_token
from tests.waiting import until

FAKE_HEAD_NODE_ID = "f" * 51 + "00000"
"""What Ray's provider of machines that are processes calls the head."""


@dataclass(frozen=True)
class RayHead:
    """A running head."""

    jobs_address: str
    gcs_address: str
    token_path: Path


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def clean_environment():
    """This process's environment without what our code or another Ray put there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLUICE_", "PYTHONPATH"))}


def answers(address, token):
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def started(num_cpus, machines=None):
    """A Ray head with token authentication, ended by its process group.

    `machines`: type -> what an autoscaler may start of it, as in `available_node_types`; each is a few processes here.
    """
    # Unix sockets allow 107 characters: the folder must be short.
    folder = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))
    # One token for all clusters of the tests: Ray keeps the first that a process reads. With another one, a process
    # that drives the embedded Ray would ask its control service in vain for ever, some thousand times a second.
    token_path = folder / "token"
    token_path.touch(mode=0o600)
    token = os.environ.get("RAY_AUTH_TOKEN") or protect_token().read_text()
    token_path.write_text(token)
    gcs, dashboard, agent, client, export = free_ports(5)
    head = RayHead(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token_path)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--metrics-export-port={export}", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--num-cpus={num_cpus}", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder / 'ray'}"),
    ]
    environment = clean_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        # Eight workers to every job, of which most do nothing.
        "RAY_prestart_worker_first_driver": "0",
        "DS_ACCELERATOR": "cpu",
    }
    if machines:
        autoscaling = folder / "autoscaling.yaml"
        autoscaling.write_text(json.dumps(autoscaled(machines, head.gcs_address)))
        command.append(f"--autoscaling-config={autoscaling}")
        environment |= {
            "PYTHONPATH": str(ROOT),
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
    log = folder / "head.log"

    def is_up():
        # What takes jobs answers before the node has its agents, and still when the node died for want of them.
        return "Ray runtime started" in log.read_text() and answers(head.jobs_address, token)

    try:
        # A node waits 15 s for its agents, which may miss that on a machine at work.
        for _ in range(STARTS):
            with running(command, environment, log) as process:
                until(lambda process=process: process.poll() is not None or is_up(), "the head")
                if process.poll() is None:
                    yield head
                    return
        raise AssertionError(f"the head ended {STARTS} times: {log.read_text()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(command, environment, log):
    """A process, and all that it starts, which end with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        # The whole group at once: what it holds is thrown away, and its own end takes longer than any test of it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def autoscaled(machines, gcs_address):
    """The configuration of an autoscaler that starts `machines`, and ends what was idle for some seconds."""
    return {
        "cluster_name": "here",
        "max_workers": sum(each["max_workers"] for each in machines.values()),
        "idle_timeout_minutes": 0.15,
        "provider": {
            "type": "external",
            "module": "tests.drills.machines.Machines",
            "gcs_address": gcs_address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
        **{f"{when}_commands": [] for when in ("initialization", "setup", "head_setup", "worker_setup")},
        **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{name: {"node_config": {}, "min_workers": 0} | each for name, each in machines.items()},
        },
    }


@pytest.fixture(scope="session")
def ray_head():
    """A Ray head of eight CPUs."""
    with started(num_cpus=8) as head:
        yield head


@pytest.fixture
def at_head(ray_head, workspace, monkeypatch):
    """This process as a client of the head, with a workspace of its own."""
    monkeypatch.setenv("RAY_ADDRESS", ray_head.jobs_address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_head.token_path))
    return ray_head
