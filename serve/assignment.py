"""Which arm a unit gets: a pure function of the seed, the unit and the weights.

GrowthBook's version 2: FNV-1a of 32 bits, twice, to four decimal digits; arms own ranges in proportion to their
weights. Once a unit has been exposed its stored arm counts, and not this function: see `serve.exposures`.
"""

import math
from collections.abc import Mapping

from cluster.errors import UserError

BUCKETS = 10_000


def fnv1a_32(text: str) -> int:
    """The FNV-1a hash (Fowler, Noll, Vo) of the text's UTF-8 bytes, 32 bits."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def place(seed: str, unit: str) -> float:
    """Where a unit stands in [0, 1): independent between seeds, the second hash sees to that."""
    return fnv1a_32(str(fnv1a_32(seed + unit))) % BUCKETS / BUCKETS


def choose_arm(seed: str, unit: str, weights: Mapping[str, float]) -> str:
    """The arm whose range holds the unit's place. Ranges follow the order of the arms' names."""
    where, ranges = place(seed, unit), arm_ranges(weights)
    return next((arm for arm, (_, end) in ranges.items() if where < end), next(reversed(ranges)))


def choose_covered_arm(seed: str, unit: str, weights: Mapping[str, float], coverage: float) -> str | None:
    """The arm whose covered range holds the unit's place; None for a unit that is not in the experiment."""
    if coverage == 1:
        return choose_arm(seed, unit, weights)
    where = place(seed, unit)
    ranges = arm_ranges(weights, coverage)
    return next((arm for arm, (start, end) in ranges.items() if start <= where < end), None)


def _on_place(edge: float) -> float:
    """The first place that is not below `edge`: what a rounding error puts just above a place counts as on it."""
    return math.ceil(edge * BUCKETS - 1e-6) / BUCKETS


def arm_ranges(weights: Mapping[str, float], coverage: float = 1.0) -> dict[str, tuple[float, float]]:
    """Arm -> its range of places, from (included) and to (excluded), in the order of the arms' names.

    As in GrowthBook's SDKs (getBucketRanges): an arm's range starts where the full ranges of those before it end, and
    coverage shortens it from its far end. So more coverage brings new units in and moves none that was in.
    Raises UserError for a coverage outside 0 to 1.
    """
    if not 0 <= coverage <= 1:
        raise UserError(f"The coverage is {coverage:g}.", "Give the share of the units to take in, from 0 to 1.")
    total = sum(weights.values())
    assert total > 0, "no arm has a weight"
    ranges, start = {}, 0.0
    for arm in sorted(weights):
        share = weights[arm] / total
        if share > 0:
            ranges[arm] = (_on_place(start), _on_place(start + coverage * share))
            start += share
    return ranges
