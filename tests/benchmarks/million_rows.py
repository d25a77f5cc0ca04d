"""Audit and split of very many rows, as a user runs them: seconds by part, memory of all processes together.

`python -m tests.benchmarks.million_rows [--rows 100000] [--kind synthetic]` prints one line as JSON. The stages run in
a process of their own; every fifth of a second the proportional set sizes (PSS) of all processes that it started are
summed up, whoever their parent is by then: they are known by a variable of their environment. Shared memory is
counted once, by what /dev/shm has grown (on a machine where nothing else uses it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.progress import Progress

MARK = "SLUICE_MEASURED"
EVERY_S = 0.2


def main() -> None:
    """Measure both stages, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=("synthetic", "packages", "docstrings"), default="synthetic")
    parser.add_argument("--folder", type=Path, help="where the rows are kept for the next time")
    parser.add_argument("--perform", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.perform:
        print(json.dumps(perform(options.folder)))
        return
    from tests.benchmarks.corpora import build

    with tempfile.TemporaryDirectory(prefix="sluice-million-") as scratch:
        folder = (options.folder or Path(scratch)) / f"{options.kind}-{options.rows}"
        if not (folder / "truth.parquet").is_file():
            build(folder, options.kind, options.rows)
        print(json.dumps({"kind": options.kind, **measured(folder, Path(scratch))}))


def perform(folder: Path) -> dict[str, Any]:
    """Audit and split the corpus in a fresh workspace; what they took, and what was found."""
    from cluster.connect import prepare_environment
    from cluster.settings import Settings
    from pipelines import audit, split
    from pipelines.waive import waive
    from pipelines.workspace import Workspace

    prepare_environment()
    workspace, recipe = Workspace(Settings.from_environment()), recipe_of(folder)
    progress, stages = _Told(), {}
    for stage in (audit.STAGE, split.STAGE):
        report = stage.perform(recipe, workspace, progress)
        stages[stage.name] = report.seconds
        for gate in report.closed_gates:
            waive(recipe, workspace, gate.gate, because="a measurement", by="the benchmark")
    return {"rows": report.figures["rows"], "seconds": stages, "parts": progress.parts}


def recipe_of(folder: Path, **audit: Any) -> Any:
    """A recipe over the corpus that closes as few gates as can be."""
    from pipelines.recipe_file import resolve

    content = {
        "name": "measured",
        "dataset": {
            "source": str(folder / "rows" / "*.jsonl"),
            "group_by": "group",
            "provenance": {"source": "made", "collector": "a benchmark", "annotator": "a person"},
        },
        "audit": {"private": {"action": "mask"}, "max_duplicate_share": 1.0, "anomalies": {"max_share": 1.0}, **audit},
        "models": [{"base": "HuggingFaceTB/SmolLM2-135M-Instruct"}],
    }
    return resolve(content, "the measurement's recipe", folder)


class _Told(Progress):
    """What the stages tell, with the seconds at which they did."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[float, str]] = []
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        self.parts.append((round(time.monotonic() - self._started, 1), text))
        print(f"{self.parts[-1][0]:8.1f} s  {text}", file=sys.stderr, flush=True)


@dataclass
class Memory:
    """The largest sums that were seen, in bytes."""

    total: int = 0
    """Of all processes' own memory, and of shared memory."""
    largest: int = 0
    """Of one process, its part of the shared memory included."""
    shared: int = 0
    processes: int = 0


def measured(folder: Path, scratch: Path) -> dict[str, Any]:
    """Perform the stages in a process of their own and watch its memory."""
    mark = uuid.uuid4().hex
    models = os.environ.get("SLUICE_MODELS") or str(Path.home() / ".sluice" / "models")
    environment = os.environ | {MARK: mark, "SLUICE_STORAGE": str(scratch / "workspace"), "SLUICE_MODELS": models}
    command = [sys.executable, "-m", "tests.benchmarks.million_rows", "--perform", "--folder", str(folder)]
    memory, over = Memory(), threading.Event()
    watch = threading.Thread(target=_watch, args=(mark, memory, over), daemon=True)
    started = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        watch.start()
        told, _ = process.communicate()
    seconds = time.monotonic() - started
    over.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"the stages failed with {process.returncode}")
    found = json.loads(told.splitlines()[-1])
    rows = sum(found["rows"].values())
    return {
        "rows_placed": rows,
        "stage_s": found["seconds"],
        "wall_s": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
        "peak_gb": round(memory.total / 1e9, 2),
        "largest_process_gb": round(memory.largest / 1e9, 2),
        "object_store_gb": round(memory.shared / 1e9, 2),
        "processes": memory.processes,
        "parts": found["parts"],
    }


def _watch(mark: str, memory: Memory, over: threading.Event) -> None:
    before = _shared_memory()
    ours: dict[str, bool] = {}
    while not over.wait(EVERY_S):
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


if __name__ == "__main__":
    main()
