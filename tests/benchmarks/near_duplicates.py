"""Near-duplicates on real texts: what is found beside every pair compared, and the time beside the peers'.

`python -m tests.benchmarks.near_duplicates [--lists FOLDER] [--rows 60000] [--sample 2000]
[--peers PYTHON] [--peer-rows 10000]` prints lines of JSON. The texts are Debian's package descriptions: FOLDER
holds apt's lists with Translation-en (`apt-get update -o Acquire::Languages=en` brings them), packed as apt
leaves them; where it has none, the texts are made up. PYTHON is an interpreter with
`requirements-benchmarks.lock`: datatrove and Data-Juicer then look for near-duplicates of the same rows, on the
same machine, one after the other.
"""

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from cluster.connect import ROOT
from pipelines.data.corpus import Corpus, CorpusWriter, Note
from pipelines.data.similarity.clusters import Clusters, find_clusters
from pipelines.data.similarity.duplicates import character_shingles, is_short, normalise, word_shingles
from pipelines.data.similarity.sketches import sketch_columns
from pipelines.progress import Progress

PEERS = ("datatrove", "data_juicer")
BATCH = 8192


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=Path, default=Path("/var/lib/apt/lists"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--peer-rows", type=int, default=10_000)
    options = parser.parse_args()
    texts = descriptions(options.lists)[: options.rows]
    what = "descriptions of Debian's packages" if texts else "made texts, as the lists hold no Translation-en"
    texts = texts or made_texts(options.rows)
    # Libraries are loaded before the clock starts.
    clusters_of(texts[:100], options.threshold)
    found, seconds = clusters_of(texts, options.threshold)
    measured = {"what": what, "rows": len(texts), "seconds": round(seconds, 1)}
    print(json.dumps(measured | quality(texts, found, options)), flush=True)
    if options.peers:
        beside_peers(texts[: options.peer_rows], options)


def descriptions(lists: Path) -> list[str]:
    """The distinct descriptions of Debian's packages, the order shuffled once for all."""
    texts = {text for file in sorted(lists.glob("*_Translation-en*")) for text in _paragraphs(file)}
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def made_texts(count: int) -> list[str]:
    """Texts of 20 to 120 words of a small vocabulary; each fifth is an earlier one with one to four words changed."""
    chance = random.Random(17)
    vocabulary = [f"word{number}" for number in range(5000)]
    texts: list[str] = []
    for number in range(count):
        words = (
            chance.choice(texts).split() if number % 5 == 4 else chance.choices(vocabulary, k=chance.randint(20, 120))
        )
        for _ in range(chance.randint(1, 4)):
            words[chance.randrange(len(words))] = chance.choice(vocabulary)
        texts.append(" ".join(words))
    return texts


def _paragraphs(file: Path) -> Iterator[str]:
    """The English description of each package in a list, its lines joined."""
    unpack = {".lz4": ["lz4", "-dc"], ".gz": ["gzip", "-dc"], ".xz": ["xz", "-dc"]}.get(file.suffix, ["cat"])
    content = subprocess.run([*unpack, str(file)], check=True, capture_output=True).stdout.decode()
    for paragraph in content.split("\n\n"):
        if "Description-en: " in paragraph:
            lines = paragraph.split("Description-en: ", 1)[1].splitlines()
            yield "\n".join([lines[0], *(line.strip() for line in lines[1:] if line.startswith(" "))])


def clusters_of(texts: Sequence[str], threshold: float) -> tuple[Clusters, float]:
    """The clusters of `texts` as answers, and the wall seconds from texts to clusters, files included."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = find_clusters(written(Path(folder) / "corpus", texts, threshold), threshold, "", Progress(quiet=True))
    return found, time.perf_counter() - started


def written(folder: Path, texts: Sequence[str], threshold: float) -> Corpus:
    """A corpus of the columns that the search reads."""
    with CorpusWriter(folder) as writer:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            normals = [normalise(text) for text in batch]
            keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in normals]
            messages = [json.dumps([{"role": "assistant", "content": text}]) for text in batch]
            columns = {"messages": pa.array(messages), "text_key": pa.array(keys, pa.binary(16))}
            writer.write(pa.table(columns | sketch_columns(normals, threshold)))
        writer.write_bad(pa.table({"file": pa.array([], pa.string())}))
        return writer.finish(Note("", "one process", 0))


def quality(texts: Sequence[str], found: Clusters, options: argparse.Namespace) -> dict[str, float]:
    """Recall and precision of the pairs of a sample of texts with all texts, beside every pair compared."""
    first = np.flatnonzero(found.text == np.arange(len(texts)))
    chosen = np.sort(np.random.default_rng(17).choice(first, min(options.sample, len(first)), replace=False))
    true = true_pairs(texts, first.tolist(), chosen.tolist(), options.threshold)
    edges = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    sample = set(chosen.tolist())
    claimed = {pair for pair in edges if sample & set(pair)}
    together = sum(found.cluster[left] == found.cluster[right] for left, right in true)
    return {
        "distinct_texts": len(first),
        "clusters_of_several": int((np.bincount(found.cluster[first]) > 1).sum()),
        "sample": len(chosen),
        "true_pairs": len(true),
        "recall_of_pairs": round(len(claimed & true) / len(true), 4),
        "recall_in_one_cluster": round(together / len(true), 4),
        "precision_of_pairs": round(len(claimed & true) / len(claimed), 4),
    }


def true_pairs(texts: Sequence[str], rows: list[int], sample: list[int], threshold: float) -> set[tuple[int, int]]:
    """Pairs of a sampled row and any row whose Jaccard similarity is at least `threshold`: all are compared.

    Over the shingles themselves, not their hashes: of words, and of characters where either text is short.
    """
    normals = {row: normalise(texts[row]) for row in rows}
    short = np.array([is_short(normals[row]) for row in rows])
    place = {row: number for number, row in enumerate(rows)}
    own = np.array([place[row] for row in sample])
    pairs: set[tuple[int, int]] = set()
    for shingles, by_characters in ((word_shingles, False), (character_shingles, True)):
        numbers: dict[str, int] = {}
        sets = [[numbers.setdefault(item, len(numbers)) for item in shingles(normals[row])] for row in rows]
        ends = np.cumsum([0, *map(len, sets)])
        matrix = csr_matrix((np.ones(ends[-1], np.int32), np.concatenate(sets), ends), (len(rows), len(numbers)))
        sizes = np.diff(ends)
        for part in np.array_split(own, max(1, len(own) // 50)):
            shared = (matrix[part] @ matrix.T).tocoo()
            left, right = part[shared.row], shared.col
            near = shared.data >= threshold * (sizes[left] + sizes[right] - shared.data)
            near &= (left != right) & ((short[left] | short[right]) == by_characters)
            for one, other in zip(left[near].tolist(), right[near].tolist(), strict=True):
                pairs.add((min(rows[one], rows[other]), max(rows[one], rows[other])))
    return pairs


def beside_peers(texts: Sequence[str], options: argparse.Namespace) -> None:
    """Wall seconds of each on the same rows, and how many times longer than ours the peers take."""
    found, ours = clusters_of(texts, options.threshold)
    left = int((found.cluster == np.arange(len(texts))).sum())
    print(json.dumps({"who": "sluice", "rows": len(texts), "seconds": round(ours, 2), "left": left}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
        for peer in PEERS:
            script = ROOT / "tests" / "benchmarks" / "peers" / "near_duplicates.py"
            done = subprocess.run(
                [options.peers, script, peer, rows, str(Path(folder) / peer)], capture_output=True, text=True
            )
            if done.returncode:
                print(json.dumps({"who": peer, "failed": done.stderr.strip().splitlines()[-1:]}), flush=True)
                continue
            result = json.loads(done.stdout.strip().splitlines()[-1])
            print(json.dumps(result | {"times_ours": round(result["seconds"] / ours, 1)}), flush=True)


if __name__ == "__main__":
    main()
