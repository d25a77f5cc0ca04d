"""How long people wait: `sluice --help`, and the audit and split of the demonstration's examples.

`python -m tests.benchmarks.house` prints one line each as JSON.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7


def main() -> None:
    """Measure each and print it."""
    show("sluice --help, s", [seconds([sys.executable, "-m", "ui.cli", "--help"]) for _ in range(ROUNDS)])
    from cluster.connect import ROOT, prepare_environment
    from cluster.settings import Settings
    from pipelines import audit, split
    from pipelines.recipe_file import load_recipe
    from pipelines.workspace import Workspace

    prepare_environment()
    recipe = load_recipe(ROOT / "pipelines" / "recipes" / "demo.yaml")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            folder, f"sqlite:///{folder}/sluice.db", f"sqlite:///{folder}/mlflow.db", Path(folder), None
        )
        workspace = Workspace(settings)
        for stage in (audit.STAGE, split.STAGE):
            reports = [stage.perform(recipe, workspace, fresh=True) for _ in range(3)]
            show(f"{stage.name} of {recipe.dataset.max_examples} examples, s", [report.seconds for report in reports])


def seconds(command: list[str]) -> float:
    """Wall time of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def show(name: str, measured: list[float]) -> None:
    """One line of JSON."""
    print(json.dumps({"what": name, "median": round(statistics.median(measured), 3), "best": round(min(measured), 3)}))


if __name__ == "__main__":
    main()
