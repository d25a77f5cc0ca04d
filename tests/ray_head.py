"""A Ray head of its own, started as an operator would: with a token, on its own ports, beside whatever else runs."""

import contextlib
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

from cluster.connect import protect_token
from tests.waiting import until


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


@pytest.fixture(scope="session")
def ray_head():
    """A Ray head with token authentication, ended by its process group."""
    # Unix sockets allow 107 characters: the folder must be short.
    folder = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))
    # One token for all clusters of the tests: Ray keeps the first that a process reads. With another one, a process
    # that drives the embedded Ray would ask its control service in vain for ever, some thousand times a second.
    token_path = folder / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(protect_token().read_text())
    gcs, dashboard, agent, client, export = free_ports(5)
    head = RayHead(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token_path)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *(f"--metrics-export-port={export}", "--min-worker-port=0", "--max-worker-port=0"),
        *("--num-cpus=8", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder / 'ray'}"),
    ]
    environment = clean_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "2",
    }
    with open(folder / "head.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or answers(head.jobs_address, token_path.read_text()), "the head")
        assert process.poll() is None, (folder / "head.log").read_text()
        yield head
    finally:
        # The whole group at once: what it holds is thrown away, and its own end takes longer than any test of it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def at_head(ray_head, workspace, monkeypatch):
    """This process as a client of the head, with a workspace of its own."""
    monkeypatch.setenv("RAY_ADDRESS", ray_head.jobs_address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(ray_head.token_path))
    return ray_head
