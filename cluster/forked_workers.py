"""Workers of the embedded Ray that are forked from one process: what they need is imported once, not by each of them.

Torch, transformers and DeepSpeed take a laptop ten seconds to import, and a training starts half a dozen processes of
which each needs some of it. Those that Ray starts from then on are there at once, and share the memory of what was
imported. Not where there is a GPU: its driver does not survive a fork.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.worker_entry import run_worker

_process: subprocess.Popen[bytes] | None = None


def fork_workers(path: str, modules: Sequence[str], python_path: str, log: Path) -> None:
    """From now on workers are forked from a process that has imported `modules`; those that come meanwhile wait.

    `path`: the socket that the node's environment names to `cluster.worker_entry`, in a folder that this makes; both go
    with the process, which ends with this one. `python_path`: what the node's processes import from; workers that
    import from elsewhere start by themselves. `log`: why it broke, if it did. It is one for all: what is asked for
    later the workers import themselves.
    """
    global _process
    if _process is not None and _process.poll() is None:
        return
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, log.open("wb") as output:
        # Here, so that whoever comes next waits already.
        listener.bind(path)
        listener.listen(64)
        _process = subprocess.Popen(
            [sys.executable, "-m", "cluster.forked_workers", str(listener.fileno()), *modules],
            env=os.environ | {"PYTHONPATH": python_path},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # An interrupt at the terminal is for the driver, which lets training end well.
            start_new_session=True,
        )


def _serve(descriptor: str, *modules: str) -> socket.socket | None:
    """In each worker that is forked: the connection to who asked for it. None: the driver is gone."""
    with socket.socket(fileno=int(descriptor)) as listener:
        is_worker = False
        try:
            # Looking for garbage is a sixth of the time that imports take, and finds none.
            gc.disable()
            for module in modules:
                importlib.import_module(module)
            # Whatever is collected would be written to, and then no longer shared.
            gc.collect()
            gc.freeze()
            gc.enable()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while True:
                ready, _, _ = select.select([listener, sys.stdin], [], [])
                if sys.stdin in ready:
                    return None
                connection, _ = listener.accept()
                is_worker = os.fork() == 0
                if is_worker:
                    return connection
                connection.close()
        finally:
            if not is_worker:
                # Who waits hears of it, and starts by itself.
                path = Path(listener.getsockname())
                path.unlink(missing_ok=True)
                path.parent.rmdir()


def _received(connection: socket.socket) -> dict[str, Any]:
    """How to start, with the outputs of who asked for it taken over."""
    size, outputs, _, _ = socket.recv_fds(connection, 8, 2)
    for number, output in enumerate(outputs, start=1):
        os.dup2(output, number)
        os.close(output)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    with connection.makefile("rb") as stream:
        started: dict[str, Any] = json.loads(stream.read(int.from_bytes(size, "big")))
    return started


def _become(connection: socket.socket, started: dict[str, Any]) -> None:
    """Go on as the worker that Ray asked for, until it ends; not where it would import from elsewhere."""
    # When a worker ends Ray ends its process group.
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    wanted = started["executable"], started["environment"].get("PYTHONPATH")
    if wanted != (sys.executable, os.environ.get("PYTHONPATH")):
        return
    os.environ.clear()
    os.environ.update(started["environment"])
    os.chdir(started["folder"])
    Path("/proc/self/oom_score_adj").write_text(started["oom_score_adj"])
    if numpy := sys.modules.get("numpy"):
        # All forks would draw the same.
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        # As many as Ray gives a worker; OpenMP has read its own variable already, of another process.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    sys.argv[1:] = started["arguments"]
    connection.sendall(b"1")
    run_worker()


if __name__ == "__main__":
    if (connection := _serve(*sys.argv[1:])) is not None:
        _become(connection, _received(connection))
