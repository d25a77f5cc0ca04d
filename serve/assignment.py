"""Which arm a unit gets: a pure function of the seed, the unit and the weights.

GrowthBook's version 2: FNV-1a of 32 bits, twice, to four decimal digits; arms own ranges in proportion to their
weights. Once a unit has been exposed its stored arm counts, and not this function: see `serve.exposures`.
"""

from collections.abc import Mapping

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
    total = sum(weights.values())
    assert total > 0, "no arm has a weight"
    where, edge = place(seed, unit), 0.0
    arms = [arm for arm in sorted(weights) if weights[arm] > 0]
    for arm in arms:
        edge += weights[arm] / total
        if where < edge:
            return arm
    return arms[-1]
