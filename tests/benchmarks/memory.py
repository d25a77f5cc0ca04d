"""The memory of a command and of all processes that it starts.

Every fifth of a second, or as often as a fiftieth of a core allows, the proportional set sizes (PSS) of the processes
are summed up, whoever their parent is by then: they are known by a variable of their environment. Shared memory is
counted once, by what /dev/shm has grown (on a machine where nothing else uses it).
"""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "SLUICE_MEASURED"
EVERY_S = 0.2
REST = 50
"""A look at large processes takes tenths of a second, and holds them up: it is followed by so many times its length."""


@dataclass
class Memory:
    """The largest sums that were seen, in bytes."""

    total: int = 0
    """Of all processes' own memory, and of shared memory."""
    largest: int = 0
    """Of one process, its part of the shared memory included."""
    shared: int = 0
    processes: int = 0


def watched(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, Memory, float]:
    """(standard output, memory, seconds) of a command with these variables too. Raises SystemExit when it fails."""
    mark = uuid.uuid4().hex
    memory, over = Memory(), threading.Event()
    watch = threading.Thread(target=_watch, args=(mark, memory, over), daemon=True)
    started = time.monotonic()
    with subprocess.Popen(
        command, env={**os.environ, MARK: mark, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        watch.start()
        told, _ = process.communicate()
    seconds = time.monotonic() - started
    over.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return told, memory, seconds


def _watch(mark: str, memory: Memory, over: threading.Event) -> None:
    before = _shared_memory()
    ours: dict[str, bool] = {}
    pause = EVERY_S
    while not over.wait(pause):
        began = time.monotonic()
        own, largest, count = 0, 0, 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if pid not in ours:
                ours[pid] = _is_marked(pid, mark)
            if ours[pid]:
                pss, shared = _proportional(pid)
                own, largest, count = own + pss - shared, max(largest, pss), count + (pss > 0)
        shared = max(0, _shared_memory() - before)
        memory.total = max(memory.total, own + shared)
        memory.largest = max(memory.largest, largest)
        memory.shared = max(memory.shared, shared)
        memory.processes = max(memory.processes, count)
        pause = max(EVERY_S, REST * (time.monotonic() - began))


def _is_marked(pid: str, mark: str) -> bool:
    with suppress(OSError):
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _proportional(pid: str) -> tuple[int, int]:
    """(PSS, the shared memory in it) in bytes; 0 of a process that has ended."""
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        pss, shared = (int(fields[name].split()[0]) * 1024 for name in ("Pss", "Pss_Shmem"))
        return pss, shared
    return 0, 0


def _shared_memory() -> int:
    """Bytes in use of /dev/shm, files that nobody can see any more included."""
    status = os.statvfs("/dev/shm")
    return (status.f_blocks - status.f_bfree) * status.f_frsize
