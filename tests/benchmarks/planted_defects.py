"""What the audit finds of planted defects, and what it takes for one.

`python -m tests.benchmarks.planted_defects [--rows N] [--kinds docstrings packages]` prints a line of JSON for each
corpus: of swapped answers the average precision of the mismatch score over all rows; of near-duplicates the share
that is in one cluster with what they resemble; of personal data and damaged encoding the share that is found; and for
each how many rows without that defect are named too. Among these are the data's own: Debian's descriptions name mail
addresses, and the standard library repeats itself.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.corpora import SHARD, build
from tests.benchmarks.million_rows import recipe_of


def main() -> None:
    """Measure each corpus and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--kinds", nargs="+", default=["docstrings", "packages"])
    parser.add_argument("--lists", type=Path, default=Path("/var/lib/apt/lists"))
    options = parser.parse_args()
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(prefix="sluice-defects-") as folder:
            built = build(Path(folder), kind, options.rows, options.lists)
            print(json.dumps({**built, **found_in(Path(folder))}), flush=True)


def found_in(folder: Path) -> dict[str, Any]:
    """The figures of one corpus."""
    from cluster.connect import prepare_environment
    from cluster.settings import Settings
    from pipelines.data.prepare import evidence_of, prepare
    from pipelines.progress import Progress
    from pipelines.workspace import Workspace

    prepare_environment()
    here = Settings.from_environment()
    settings = Settings(
        f"{folder}/workspace", f"sqlite:///{folder}/sluice.db", f"sqlite:///{folder}/mlflow.db", here.models, None
    )
    # Every row is shown with its score, so that its rank is known.
    recipe = recipe_of(folder, anomalies={"mismatch": 1.0, "max_share": 1.0})
    workspace, progress = Workspace(settings), Progress()
    corpus, evidence = prepare(recipe, workspace, progress), evidence_of(recipe, workspace, progress)
    rows = corpus_rows(corpus)
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    planted = {name: np.array([rows[each["row"]] for each in truth if each["defect"] == name]) for name in _DEFECTS}
    near = [(rows[each["row"]], rows[each["of"]]) for each in truth if each["defect"] == "near"]
    return {
        "swapped": average_precision(evidence.suspects, planted["swapped"], len(corpus)),
        "near": {
            "recall": _share(evidence.cluster[left] == evidence.cluster[right] for left, right in near),
            "pairs": dict(Counter(evidence.edges["kind"].to_pylist())),
        },
        "private": found_and_others(evidence.private["row"].to_numpy(), planted["private"], len(corpus)),
        "encoding": found_and_others(_of_kind(evidence.suspects, "encoding")[0], planted["encoding"], len(corpus)),
        "suspects": dict(Counter(evidence.suspects["kind"].to_pylist())),
    }


_DEFECTS = ("swapped", "near", "private", "encoding")


def corpus_rows(corpus: Any) -> dict[int, int]:
    """Row of the written files -> number in the corpus, which has none for what could not be read."""
    files, positions = corpus.column("file").to_pylist(), corpus.column("position").to_pylist()
    written = [int(file.removesuffix(".jsonl")) * SHARD + at - 1 for file, at in zip(files, positions, strict=True)]
    return {row: number for number, row in enumerate(written)}


def average_precision(suspects: pa.Table, planted: "np.ndarray[Any, Any]", rows: int) -> dict[str, Any]:
    """Of the mismatch score over all rows; one without a score counts as the least suspect."""
    from sklearn.metrics import average_precision_score

    truth, score = np.zeros(rows, bool), np.full(rows, -np.inf)
    truth[planted] = True
    found, scores = _of_kind(suspects, "mismatch")
    score[found] = scores
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
    # Ties of those without a score must not be broken in the order of rows.
    rank[~np.isfinite(score)] = -1
    top = np.argsort(-rank, kind="stable")[: len(planted)]
    return {
        "average_precision": round(float(average_precision_score(truth, rank)), 4),
        "by_chance": round(len(planted) / rows, 4),
        "precision_among_as_many": round(float(truth[top].mean()), 4),
        "scored_rows": len(found),
    }


def found_and_others(
    found: "np.ndarray[Any, Any]", planted: "np.ndarray[Any, Any]", rows: int
) -> dict[str, float | int]:
    """Recall of the planted rows, and how many others are named."""
    named = np.unique(found)
    others = np.setdiff1d(named, planted)
    return {
        "recall": round(float(np.isin(planted, named).mean()), 4),
        "others": len(others),
        "share_of_others": round(len(others) / max(1, rows - len(planted)), 5),
    }


def _of_kind(suspects: pa.Table, kind: str) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    wanted = np.array(suspects["kind"].to_pylist(), object) == kind
    return suspects["row"].to_numpy()[wanted], suspects["score"].to_numpy()[wanted]


def _share(flags: Any) -> float:
    listed = list(flags)
    return round(sum(map(bool, listed)) / max(1, len(listed)), 4)


if __name__ == "__main__":
    main()
