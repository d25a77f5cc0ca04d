"""Near-duplicate pairs by sketches beside every pair compared, on texts of which a fifth are near copies.

`python -m tests.benchmarks.near_duplicates [--rows 2000]` prints one line as JSON: CPU seconds, their ratio,
and how many of the true pairs the sketches found. The exact search of the leakage gate is measured beside
them, as it looks for the same pairs: here with each text on a side of its own.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.data.duplicates import jaccard, near_duplicate_pairs, word_shingles
from pipelines.data.leakage import Placed, find_leaks

T = TypeVar("T")


def texts_with_copies(rows: int, seed: int) -> list[str]:
    """Distinct texts of 20 to 120 words; each fifth is an earlier one with one to four words changed."""
    chance = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(5000)]
    texts: list[str] = []
    for number in range(rows):
        if number % 5 == 4:
            words = chance.choice(texts).split()
            for _ in range(chance.randint(1, 4)):
                words[chance.randrange(len(words))] = chance.choice(vocabulary)
        else:
            words = chance.choices(vocabulary, k=chance.randint(20, 120))
        texts.append(" ".join(words))
    return sorted(set(texts))


def every_pair(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    """The true pairs, by comparing each text with each other."""
    sets = [word_shingles(text) for text in texts]
    return {(i, j) for i, j in itertools.combinations(range(len(sets)), 2) if jaccard(sets[i], sets[j]) >= threshold}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the CPU seconds that it took."""
    started = time.process_time()
    return work(), time.process_time() - started


def main() -> None:
    """Measure the three on the same texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--threshold", type=float, default=0.7)
    options = parser.parse_args()
    texts = texts_with_copies(options.rows, seed=17)
    # The library is loaded before the clock starts.
    near_duplicate_pairs(texts[:10], options.threshold)
    sketched, fast = timed(lambda: near_duplicate_pairs(texts, options.threshold))
    placed = [Placed(str(number), text, str(number)) for number, text in enumerate(texts)]
    leaks, exact = timed(lambda: find_leaks(placed, options.threshold))
    true, slow = timed(lambda: every_pair(texts, options.threshold))
    found = {(left, right) for left, right, _ in sketched}
    result = {
        "rows": len(texts),
        "threshold": options.threshold,
        "true_pairs": len(true),
        "sketches_found": len(found & true),
        "exact_search_found": len({frozenset((leak.left, leak.right)) for leak in leaks}),
        "sketches_cpu_s": round(fast, 3),
        "exact_search_cpu_s": round(exact, 3),
        "every_pair_cpu_s": round(slow, 3),
        "times_faster": round(slow / fast, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
