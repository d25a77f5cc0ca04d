"""Rows of a split to stored bins: rows per second and memory, in one process and in Ray Data's.

`python -m tests.benchmarks.input_stream [--rows 20000] [--kind synthetic]` prints one line as JSON. `driver_gb` is the
memory of the process that packs and writes, without pages of files (which the system takes back when it needs them);
`peak_gb` is that of all processes, pages of files included (see `memory.py`). Ray is started before the clock.
`fill` is the share of the places in bins of 512 and 1024 tokens that hold a token of an example.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.memory import EVERY_S, watched

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
LENGTHS = (512, 1024)


def main() -> None:
    """Measure both ways on the same rows, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kind", choices=("synthetic", "packages", "docstrings"), default="synthetic")
    parser.add_argument("--perform", choices=("here", "ray_data"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.perform:
        print(json.dumps(perform(options.file, options.perform)))
        return
    with tempfile.TemporaryDirectory(prefix="sluice-stream-") as scratch:
        file = Path(scratch, "rows.arrow")
        count = write_rows(file, options.kind, options.rows)
        ways = {way: measured(file, way, Path(scratch, way)) for way in ("here", "ray_data")}
    bins = {way: found.pop("bins_sha256") for way, found in ways.items()}
    fill = next(found.pop("fill") for found in reversed(ways.values()))
    same = len(set(bins.values())) == 1
    print(json.dumps({"kind": options.kind, "rows": count, **ways, "same_bins": same, "fill": fill}))


def write_rows(file: Path, kind: str, most: int) -> int:
    """Conversations of a corpus as the split has them; how many."""
    import pyarrow as pa

    from pipelines.data.spool import SpoolWriter
    from pipelines.fingerprint import fingerprint
    from tests.benchmarks import corpora

    source = corpora.synthetic(most, 17) if kind == "synthetic" else getattr(corpora, kind)()
    rows, count = islice(source, most), 0
    with SpoolWriter(file, pa.schema({"id": pa.string(), "messages": pa.string()})) as writer:
        while some := list(islice(rows, 4096)):
            pairs = [(row["prompt"], row["completion"]) for row in some]
            turns = [
                json.dumps([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
                for prompt, answer in pairs
            ]
            ids = [fingerprint(count + number, text) for number, text in enumerate(turns)]
            writer.add(pa.record_batch({"id": ids, "messages": turns}))
            count += len(some)
    return count


def measured(file: Path, way: str, storage: Path) -> dict[str, Any]:
    """One way in a process of its own."""
    models = os.environ.get("SLUICE_MODELS") or str(Path.home() / ".sluice" / "models")
    command = [sys.executable, "-m", "tests.benchmarks.input_stream", "--perform", way, "--file", str(file)]
    told, memory, _ = watched(command, {"SLUICE_STORAGE": str(storage), "SLUICE_MODELS": models})
    shared = {"peak_gb": round(memory.total / 1e9, 2), "object_store_gb": round(memory.shared / 1e9, 3)}
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found | shared


def perform(file: Path, way: str) -> dict[str, Any]:
    """Store the bins of the rows; the rate, and the memory of this process."""
    from cluster.connect import connect, prepare_environment
    from cluster.settings import Settings
    from pipelines.data.spool import Spool
    from pipelines.fingerprint import file_fingerprint
    from pipelines.models.load import find_base
    from pipelines.progress import Progress
    from pipelines.recipe import BaseModelChoice, Train
    from pipelines.training import input_stream
    from pipelines.training.stored_bins import store_bins
    from pipelines.workspace import Workspace

    prepare_environment()
    settings = Settings.from_environment()
    base, rows = find_base(BaseModelChoice(base=BASE), settings).folder, Spool(file)
    input_stream.ROWS_HERE = len(rows) if way == "here" else 0
    if way == "ray_data":
        connect(settings)
    started = time.monotonic()
    with OwnMemory() as memory:
        sides = lambda folder: {"train": rows, "validation": no_rows(folder, rows)}  # noqa: E731
        stored = store_bins(Workspace(settings), "0" * 12, base, sides, Train(max_length=max(LENGTHS)), Progress())
    seconds = time.monotonic() - started
    bins = Path(stored.address, "train.arrow")
    return {
        "seconds": round(seconds, 1),
        "rows_per_s": round(len(rows) / seconds),
        "tokens": stored.train.tokens,
        "driver_gb": round(memory.peak_bytes / 1e9, 3),
        "bins_sha256": file_fingerprint(bins),
        "fill": fill(bins),
    }


def no_rows(folder: Path, rows: Any) -> Any:
    """A side without any."""
    from pipelines.data.spool import Spool, SpoolWriter

    with SpoolWriter(folder / "none", rows.schema):
        pass
    return Spool(folder / "none")


def fill(bins: Path) -> dict[str, float]:
    """Longest -> the filled share of bins of the stored examples that are no longer."""
    import pyarrow as pa

    from pipelines.data.packing import pack

    lengths = pa.ipc.open_file(pa.memory_map(str(bins))).read_all()["lengths"].combine_chunks().flatten().to_numpy()
    found = {}
    for longest in LENGTHS:
        short = lengths[lengths <= longest]
        _, held = pack(short, longest)
        found[str(longest)] = round(float(short.sum()) / (len(held) * longest), 4)
    return found


class OwnMemory:
    """Samples this process's own memory, pages of files left out, while inside `with`."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak_bytes = max(self.peak_bytes, int(status["RssAnon"].split()[0]) * 1024)


if __name__ == "__main__":
    main()
