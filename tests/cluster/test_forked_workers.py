"""Workers of an embedded Ray that are forked from a process which has imported things."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.waiting import until

pytestmark = pytest.mark.cluster

DRIVER = """
import json, os, sys
from cluster.connect import connect, preload_workers
from cluster.settings import Settings

connect(Settings.from_environment())
preload_workers(sys.argv[1])
import ray

MODULE = sys.argv[1]

@ray.remote(num_cpus=0)
class Worker:
    def found(self):
        import random, numpy
        said = os.environ.get("SAID")
        return {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "said": said,
                "had": MODULE in sys.modules, "drawn": [random.random(), numpy.random.rand()]}

workers = [Worker.options(runtime_env={"env_vars": {"SAID": "this"}} if number else {}).remote() for number in range(3)]
print(json.dumps(ray.get([worker.found.remote() for worker in workers])), flush=True)
if sys.argv[2] == "kill":
    ray.kill(workers[0])
    print(json.dumps(ray.get([worker.found.remote() for worker in workers[1:]])), flush=True)
    sys.stdin.read()
"""


def drive(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        env=os.environ | {"RAY_AUTH_MODE": "token"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_they_share_what_was_imported_and_nothing_else_and_end_with_the_driver(tmp_path, monkeypatch):
    (tmp_path / "preloaded_here.py").write_text("import numpy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with drive("preloaded_here", "kill") as driver:
        found = json.loads(driver.stdout.readline())
        assert all(each["had"] for each in found)
        (parent,) = {each["parent"] for each in found}
        assert "cluster.forked_workers" in psutil.Process(parent).cmdline()
        # Ray ends the whole process group of a worker.
        assert [each["group"] for each in found] == [each["pid"] for each in found]
        assert [each["said"] for each in found] == [None, "this", "this"]
        assert len({number for each in found for number in each["drawn"]}) == 6
        left = json.loads(driver.stdout.readline())
        assert [each["pid"] for each in left] == [each["pid"] for each in found[1:]]
        driver.send_signal(signal.SIGKILL)
    pids = [parent, *(each["pid"] for each in found)]
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the end of all that was forked")


@pytest.mark.parametrize("content, wanted", [("raise RuntimeError('broken')", "1"), ("", "0")])
def test_where_that_process_breaks_or_is_unwanted_they_start_by_themselves(tmp_path, monkeypatch, content, wanted):
    (tmp_path / "broken_here.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SLUICE_FORK_WORKERS", wanted)
    with drive("broken_here", "") as driver:
        found = json.loads(driver.stdout.readline())
        assert [each["said"] for each in found] == [None, "this", "this"]
        assert not any(each["had"] for each in found)
    assert driver.returncode == 0
