"""What a set of examples looks like: repeats, clusters, common answers, lengths, who made them. Pure."""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.data.duplicates import connected, near_duplicate_pairs, normalise
from pipelines.data.example import Example, answers, text_of

SIMULATIONS = 20
"""Random splits that are simulated, and averaged."""
LENGTH_BOUNDS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""Words at which the bars of the length histograms end."""


@dataclass(frozen=True)
class Survey:
    """Examples, and what is computed from them at most once."""

    examples: Sequence[Example]
    threshold: float
    """Similarity from which two texts are near-duplicates."""
    instruction: str = ""
    """What the recipe put before every prompt: not compared."""

    @cached_property
    def unique(self) -> dict[str, Example]:
        """The first example of each id."""
        found: dict[str, Example] = {}
        for example in self.examples:
            found.setdefault(example.id, example)
        return found

    @cached_property
    def repeats(self) -> Counter[str]:
        """How many rows have each id."""
        return Counter(example.id for example in self.examples)

    @cached_property
    def text_of_id(self) -> dict[str, int]:
        """Id -> number of its normalised text among `texts`."""
        number_of = {text: number for number, text in enumerate(self.texts)}
        return {id: number_of[text] for id, text in self._normal.items()}

    @cached_property
    def _normal(self) -> dict[str, str]:
        return {id: normalise(text_of(example.turns, self.instruction)) for id, example in self.unique.items()}

    @cached_property
    def texts(self) -> list[str]:
        """The different normalised texts, sorted."""
        return sorted(set(self._normal.values()))

    @cached_property
    def pairs(self) -> list[tuple[int, int, float]]:
        """Numbers of the texts that are near-duplicates, with their similarity."""
        return near_duplicate_pairs(self.texts, self.threshold)

    @cached_property
    def cluster_of_text(self) -> list[int]:
        """For each text the number of its cluster."""
        return connected(len(self.texts), [(left, right) for left, right, _ in self.pairs])

    @cached_property
    def clusters(self) -> Counter[int]:
        """Cluster -> its rows, repeats included."""
        return Counter(self.cluster_of_text[self.text_of_id[example.id]] for example in self.examples)

    @cached_property
    def most_common_answer(self) -> tuple[str, int]:
        """The answer that stands in most rows, and in how many."""
        counts = Counter(answer for example in self.examples for answer in set(answers(example.turns)))
        return counts.most_common(1)[0]

    @cached_property
    def by_people(self) -> int:
        """Unique examples that a named person wrote or approved."""
        return len({example.id for example in self.examples if example.by_a_person})

    def random_split(self, train: float, test: float, seed: int) -> dict[str, float]:
        """What a split of the rows at random would leak, averaged over seeded simulations.

        `leak_share`: test rows with another row of their cluster on the training side; `group_share`: test
        rows with another row of their group there; `test_rows`: the size of the test side.
        """
        clusters = [self.cluster_of_text[self.text_of_id[example.id]] for example in self.examples]
        groups = [example.group for example in self.examples]
        size = len(clusters)
        test_rows = max(1, round(size * test)) if size else 0
        train_rows = min(round(size * train), size - test_rows)
        order, chance = list(range(size)), random.Random(seed)
        leaked = grouped = 0
        simulations = SIMULATIONS if size <= 50_000 else 3
        for _ in range(simulations):
            chance.shuffle(order)
            learnt = order[test_rows : test_rows + train_rows]
            seen = {clusters[row] for row in learnt}
            seen_groups = {groups[row] for row in learnt if groups[row]}
            for row in order[:test_rows]:
                leaked += clusters[row] in seen
                grouped += groups[row] in seen_groups
        drawn = simulations * test_rows or 1
        return {"leak_share": leaked / drawn, "group_share": grouped / drawn, "test_rows": test_rows}

    def lengths(self, part: Callable[[Example], str]) -> dict[str, Any]:
        """Words of a part of each unique example: least, median, mean, 95th percentile, most, and a histogram."""
        words = sorted(len(part(example).split()) for example in self.unique.values())
        bars = Counter(next((bound for bound in LENGTH_BOUNDS if count <= bound), 0) for count in words)
        edges = (0, *(bound + 1 for bound in LENGTH_BOUNDS[:-1]))
        histogram: list[dict[str, int | None]] = [
            {"from": low, "to": high, "count": bars[high]} for low, high in zip(edges, LENGTH_BOUNDS, strict=True)
        ]
        histogram.append({"from": LENGTH_BOUNDS[-1] + 1, "to": None, "count": bars[0]})
        return {
            "min": words[0],
            "median": statistics.median(words),
            "mean": round(statistics.fmean(words), 1),
            "p95": words[min(len(words) - 1, int(0.95 * len(words)))],
            "max": words[-1],
            "histogram": histogram,
        }


def prompt_of(example: Example, instruction: str = "") -> str:
    """What stands before the first answer, without the recipe's instruction where that is given."""
    turns = example.turns
    first = next(number for number, turn in enumerate(turns) if turn["role"] == "assistant")
    prefix = f"{instruction}\n\n" if instruction else ""
    return "\n".join(turn["content"].removeprefix(prefix) for turn in turns[:first])


def answer_of(example: Example) -> str:
    """The answers, joined."""
    return "\n".join(answers(example.turns))
