"""Ray's Jobs API against a head of its own with token authentication."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from cluster.connect import ROOT
from cluster.errors import UserError
from cluster.jobs import Jobs, JobState
from cluster.packages import copy_packages
from tests.waiting import until

PROBE = """
import os, sys, time
from pathlib import Path
import pipelines
print("packages from", Path(pipelines.__file__).parent.parent == Path.cwd())
print("said", os.environ["SAID"])
print(Path("recipe.yaml").read_text())
flag = Path(os.environ["FLAG"])
while not flag.exists():
    time.sleep(0.1)
print("the end")
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def probe(tmp_path):
    """A folder whose module waits for a file, then exits with a code; with the environment that it wants."""
    folder = tmp_path / "job"
    folder.mkdir()
    copy_packages(folder)
    (folder / "probe.py").write_text(PROBE)
    (folder / "recipe.yaml").write_text("name: $(touch /tmp/never); it's a text")
    flag = tmp_path / "flag"

    def environment(code=0, released=True):
        if released:
            flag.touch()
        return {"SAID": "hello", "CODE": str(code), "FLAG": str(flag)}

    return folder, environment, flag


def unique(name):
    return f"{name}-{os.urandom(4).hex()}"


@pytest.mark.cluster
def test_a_job_runs_our_packages_from_its_folder_and_its_log_is_followed_to_the_end(at_head, probe):
    folder, environment, flag = probe
    jobs = Jobs()
    name = unique("follow")
    jobs.submit(name, "probe", folder, environment(released=False))
    shown = []

    def release_when_seen(text):
        shown.append(text)
        if "said hello" in "".join(shown):
            flag.touch()

    job = jobs.follow(name, release_when_seen)

    log = "".join(shown)
    assert (job.state, job.exit_code) == (JobState.SUCCEEDED, 0)
    assert "packages from True" in log
    assert log.rstrip().endswith("the end")
    assert "it's a text" in log, "the recipe travels as a file, untouched by a shell"
    assert log.count("said hello") == 1


@pytest.mark.cluster
def test_the_stages_own_exit_code_is_told(at_head, probe):
    folder, environment, _ = probe
    jobs = Jobs()
    name = unique("code")
    jobs.submit(name, "probe", folder, environment(code=3))
    job = jobs.follow(name, lambda text: None)
    assert (job.state, job.exit_code) == (JobState.FAILED, 3)
    assert jobs.list()[name].exit_code == 3


@pytest.mark.cluster
def test_a_stopped_job_is_told_as_stopped_and_its_follower_ends(at_head, probe):
    folder, environment, _ = probe
    jobs = Jobs()
    name = unique("stop")
    jobs.submit(name, "probe", folder, environment(released=False))
    ended = []
    follower = threading.Thread(target=lambda: ended.append(jobs.follow(name, lambda text: None)))
    follower.start()
    until(lambda: jobs.find(name).state is JobState.RUNNING, "the job's start")

    assert jobs.stop(name)

    follower.join(60)
    assert [job.state for job in ended] == [JobState.STOPPED]
    assert not jobs.stop(name), "it has ended already"


@pytest.mark.cluster
def test_an_unknown_job_is_none(at_head):
    assert Jobs().find("never-submitted") is None


@pytest.mark.cluster
def test_the_entrypoint_names_this_interpreter_where_the_cluster_is_this_machine(at_head, monkeypatch):
    import sys

    jobs = Jobs()
    assert jobs.is_here
    assert jobs.entrypoint("pipelines.train") == f"{sys.executable} -m pipelines.train recipe.yaml"
    monkeypatch.setenv("SLUICE_JOB_PYTHON", "/opt/the venv/bin/python")
    assert (
        jobs.entrypoint("pipelines.train", ("--fresh",))
        == "'/opt/the venv/bin/python' -m pipelines.train recipe.yaml --fresh"
    )
    for module, options in (("pipelines.train; true", ()), ("pipelines.train", ("--fresh; true",))):
        with pytest.raises(AssertionError):
            jobs.entrypoint(module, options)


@pytest.mark.cluster
def test_a_ray_address_finds_the_same_jobs(at_head, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", at_head.gcs_address)
    assert Jobs().find("never-submitted") is None


@pytest.mark.cluster
def test_a_wrong_token_is_a_sentence_with_a_remedy(at_head, tmp_path):
    other = tmp_path / "other"
    other.write_text("0" * 64)
    # A process of its own: Ray keeps the first token that a process reads.
    command = [sys.executable, "-c", "from cluster.jobs import Jobs; Jobs()"]
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(other)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode and "UserError" in done.stderr
    assert "refuses this token" in done.stderr and "RAY_AUTH_TOKEN_PATH" in done.stderr


def test_a_cluster_that_is_away_is_a_sentence_with_a_remedy(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="No Ray cluster answers at") as caught:
        Jobs()
    assert address in caught.value.message
    assert "ray start --head" in caught.value.remedy
