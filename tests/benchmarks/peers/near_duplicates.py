"""Near-duplicates by a peer: `PYTHON tests/benchmarks/peers/near_duplicates.py PEER ROWS.jsonl FOLDER`.

PYTHON is the peers' own interpreter. Both with shingles of five words, 128 permutations in 32 bands of 4, their
own defaults otherwise. Prints one line of JSON: wall seconds without the import of the library, and the rows that
are left.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

BANDS, ROWS = 32, 4


def datatrove(rows: Path, folder: Path) -> Callable[[], int]:
    """MinHash in datatrove's four stages, on this machine, in this process."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    reader = JsonlReader(str(rows.parent), glob_pattern=rows.name)
    names = {name: str(folder / name) for name in ("signatures", "buckets", "remove", "kept")}
    stages = [
        (1, [reader, MinhashDedupSignature(names["signatures"], config=config)]),
        (BANDS, [MinhashDedupBuckets(names["signatures"], names["buckets"], config=config)]),
        (1, [MinhashDedupCluster(names["buckets"], names["remove"], config=config)]),
        (1, [reader, MinhashDedupFilter(names["remove"]), JsonlWriter(names["kept"], compression=None)]),
    ]

    def work() -> int:
        for number, (tasks, pipeline) in enumerate(stages):
            logs = str(folder / f"logs{number}")
            # One process for each of two cores; in one alone the buckets' 32 tasks would run one after another.
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=2, logging_dir=logs).run()
        return sum(len(file.read_text().splitlines()) for file in Path(names["kept"]).glob("*.jsonl"))

    return work


def data_juicer(rows: Path, folder: Path) -> Callable[[], int]:
    """MinHash as Data-Juicer's operator, on its own dataset."""
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator

    operator = DocumentMinhashDeduplicator(
        tokenization="space",
        window_size=5,
        num_permutations=BANDS * ROWS,
        jaccard_threshold=0.7,
        num_bands=BANDS,
        num_rows_per_band=ROWS,
        num_proc=2,
    )

    def work() -> int:
        records = [json.loads(line) for line in rows.read_text().splitlines()]
        return len(NestedDataset.from_list(records).process(operator))

    return work


def main() -> None:
    """Run the peer and print."""
    name, rows, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    count = len(rows.read_text().splitlines())
    work = {"datatrove": datatrove, "data_juicer": data_juicer}[name](rows, folder)
    started = time.perf_counter()
    left = work()
    print(json.dumps({"who": name, "rows": count, "seconds": round(time.perf_counter() - started, 2), "left": left}))


if __name__ == "__main__":
    main()
