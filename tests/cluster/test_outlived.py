"""What must not outlive its parent does not, and another process with its number is left alone."""

import os
import signal
import subprocess
import sys
from functools import partial

from cluster.outlived import end_with_this

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_killed_parent_takes_them_along():
    sleeper = partial(subprocess.Popen, SLEEPER, stdin=subprocess.PIPE)
    with sleeper() as held, sleeper() as other:
        script = (
            "import sys\nfrom cluster.outlived import end_with_this\n"
            "watch = end_with_this([int(sys.argv[1])])\nprint('watched', flush=True)\nsys.stdin.read()"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", script, str(held.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout.readline() == "watched\n"
        assert held.poll() is None
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
        assert held.wait(60) == -signal.SIGKILL
        assert other.poll() is None


def test_those_that_have_ended_before_are_no_trouble():
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as gone:
        gone.communicate()
    watch = end_with_this([gone.pid])
    watch.communicate()
    assert watch.returncode == 0
