"""What the embedded Ray starts as a worker: forked from the process that has imported things, if there is one.

Run by its path, with the arguments of Ray's own worker. Imports next to nothing: a worker is waited for.
"""

import array
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

FORKS = "SLUICE_WORKER_FORKS"
"""Path of the socket of the process that workers are forked from; nobody listens there until one was asked for."""


def forked(path: str) -> bool:
    """Whether the worker ran as a fork of the process at `path`, and has ended; False: none is there, or none fits."""
    started = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "executable": sys.executable,
        # Ray's node has just said that workers are to go first when memory runs out.
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
    }
    content, outputs = json.dumps(started).encode(), array.array("i", [1, 2])
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
            server.sendmsg([len(content).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
            server.sendall(content)
            if not server.recv(1):
                return False
        except OSError:
            return False
        # Ray's node takes the process that it started for the worker until that one has said which it is. Nobody tells
        # when that was: this one waits until the worker ends.
        with suppress(OSError):
            server.recv(1)
        return True


def run_worker() -> None:
    """Ray's own worker, in this process."""
    import runpy
    from importlib.util import find_spec

    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    worker = Path(ray.origin).parent / "_private" / "workers" / "default_worker.py"
    sys.argv[0], sys.path[0] = str(worker), str(worker.parent)
    runpy.run_path(str(worker), run_name="__main__")


def main() -> None:
    """Be the worker, or wait for the one that was forked."""
    path = os.environ.get(FORKS, "")
    if not (path and os.path.exists(path) and forked(path)):
        run_worker()


if __name__ == "__main__":
    main()
