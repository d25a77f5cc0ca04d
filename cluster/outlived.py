"""Processes that must not outlive this one, though they are not told when it is killed."""

import subprocess
import sys
from collections.abc import Sequence

WATCH = """
import os, signal, sys
held = []
for number in sys.argv[1:]:
    try:
        held.append(os.pidfd_open(int(number)))
    except ProcessLookupError:
        pass
print("held", flush=True)
sys.stdin.read()
for process in held:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def end_with_this(processes: Sequence[int]) -> "subprocess.Popen[str]":
    """Start a process that kills `processes` (their numbers) once this one has ended, or closes the pipe to it.

    By handles of the system's: another process that later has such a number is not touched. Raises OSError where the
    system has none.
    """
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WATCH, *map(str, processes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What ends this one's group would end it too, before it has done its work.
        start_new_session=True,
    )
    assert watch.stdout is not None
    if watch.stdout.readline() != "held\n":
        raise OSError(f"what must not outlive this process is not watched: code {watch.wait()}")
    return watch
