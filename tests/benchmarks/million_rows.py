"""Audit and split of very many rows, as a user runs them: seconds by part, memory of all processes together.

`python -m tests.benchmarks.million_rows [--rows 100000] [--kind synthetic]` prints one line as JSON. The stages run in
a process of their own; its memory and that of all that it starts is measured as `memory.py` says.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.progress import Progress
from tests.benchmarks.memory import watched


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


def measured(folder: Path, scratch: Path) -> dict[str, Any]:
    """Perform the stages in a process of their own and watch its memory."""
    models = os.environ.get("SLUICE_MODELS") or str(Path.home() / ".sluice" / "models")
    command = [sys.executable, "-m", "tests.benchmarks.million_rows", "--perform", "--folder", str(folder)]
    places = {"SLUICE_STORAGE": str(scratch / "workspace"), "SLUICE_MODELS": models}
    told, memory, seconds = watched(command, places)
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


if __name__ == "__main__":
    main()
