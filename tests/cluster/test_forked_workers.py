"""Workers of an embedded Ray that are forked from a process which has imported things."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.connect import _has_gpu
from tests.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(_has_gpu(), reason="where there is a GPU nothing is forked"),
]

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
        return {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "said": os.environ.get("SAID"),
                "path": sys.path, "had": MODULE in sys.modules, "drawn": [random.random(), numpy.random.rand()],
                "oom": open("/proc/self/oom_score_adj").read(), "socket": os.environ.get("SLUICE_WORKER_FORKS")}

    def computed(self):
        import torch
        torch.set_num_threads(2)
        one = torch.ones(600, 600)
        return [float((one @ one).sum()), float(torch.linalg.solve(one + 600 * torch.eye(600), one).sum())]

def worker(**said):
    return Worker.options(runtime_env={"env_vars": said} if said else {}).remote()

def tell(*workers, call="found"):
    print(json.dumps(ray.get([getattr(one, call).remote() for one in workers])), flush=True)

exec(sys.argv[2])
"""


def drive(module, script):
    # As users start it: tests allow OpenMP one thread, and only a pool of them could be lost in a fork.
    left_out = ("OMP_THREAD_LIMIT", "RAY_ADDRESS")
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, module, script],
        env={name: value for name, value in os.environ.items() if name not in left_out} | {"RAY_AUTH_MODE": "token"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def is_gone(pid):
    try:
        # Where nobody reaps, those that have ended stay listed.
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def workers_of(driver):
    """Each one's process, the killed one's not: it may end between the listing and the look."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("worker_entry.py" in argument for argument in process.cmdline()):
                found.append(process.pid)
    return found


def test_they_share_what_was_imported_and_nothing_else_and_end_with_the_driver(tmp_path, monkeypatch):
    (tmp_path / "preloaded_here.py").write_text("import numpy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = "w = [worker(), worker(SAID='this'), worker(SAID='that')]; tell(*w); ray.kill(w[0]); tell(*w[1:]); input()"
    with drive("preloaded_here", script) as driver:
        found = json.loads(driver.stdout.readline())
        assert all(each["had"] for each in found)
        (parent,) = {each["parent"] for each in found}
        assert "cluster.forked_workers" in psutil.Process(parent).cmdline()
        # Ray ends the whole process group of a worker.
        assert [each["group"] for each in found] == [each["pid"] for each in found]
        assert [each["said"] for each in found] == [None, "this", "that"]
        assert len({number for each in found for number in each["drawn"]}) == 6
        # When memory runs out a worker goes before the driver.
        assert {int(each["oom"]) for each in found} == {1000}
        left = json.loads(driver.stdout.readline())
        assert [each["pid"] for each in left] == [each["pid"] for each in found[1:]]
        entries = workers_of(driver)
        assert entries
        driver.send_signal(signal.SIGKILL)
    pids = [parent, *entries, *(each["pid"] for each in found)]
    until(lambda: all(map(is_gone, pids)), "the end of all that was forked")
    assert not Path(found[0]["socket"]).parent.exists()


def test_training_workers_compute_in_a_fork():
    with drive(
        "pipelines.training.preloaded", "w = [worker(), worker()]; tell(*w); tell(*w, call='computed')"
    ) as driver:
        found = json.loads(driver.stdout.readline())
        assert all(each["had"] for each in found)
        for products, solved in json.loads(driver.stdout.readline()):
            assert products == 600**3
            assert solved == pytest.approx(600 * 600 / 1200, rel=1e-4)
    assert driver.returncode == 0


def test_what_is_imported_before_a_fork_neither_imports_ray_nor_starts_a_thread():
    script = (
        "import sys, threading, pipelines.training.preloaded; print('ray' in sys.modules, threading.active_count())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # Ray reads which job it works for when it is imported.
    assert said.stdout.split() == ["False", "1"]


def test_one_that_imports_from_elsewhere_starts_by_itself(tmp_path, monkeypatch):
    (tmp_path / "preloaded_here.py").write_text("")
    (tmp_path / "else").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    elsewhere = os.pathsep.join((str(tmp_path / "else"), *sys.path))
    with drive("preloaded_here", f"tell(worker(), worker(PYTHONPATH={elsewhere!r}))") as driver:
        plain, other = json.loads(driver.stdout.readline())
        assert (plain["had"], other["had"]) == (True, False)
        assert str(tmp_path / "else") in other["path"]
    assert driver.returncode == 0


@pytest.mark.parametrize("content, wanted", [("raise RuntimeError('broken')", "1"), ("", "0")])
def test_where_that_process_breaks_or_is_unwanted_they_start_by_themselves(tmp_path, monkeypatch, content, wanted):
    (tmp_path / "broken_here.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SLUICE_FORK_WORKERS", wanted)
    with drive("broken_here", "tell(worker(), worker(SAID='this'))") as driver:
        found = json.loads(driver.stdout.readline())
        assert [each["said"] for each in found] == [None, "this"]
        assert not any(each["had"] for each in found)
    assert driver.returncode == 0
