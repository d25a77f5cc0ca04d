from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from serve.assignment import choose_arm, fnv1a_32, place

weights = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 10), min_size=1).filter(
    lambda w: sum(w.values()) > 1e-6
)


def test_the_hash_is_fnv1a():
    # From the reference implementation's published vectors.
    assert fnv1a_32("") == 0x811C9DC5
    assert fnv1a_32("a") == 0xE40C292C
    assert fnv1a_32("foobar") == 0xBF9CF968


@pytest.mark.parametrize(
    ("seed", "unit", "expected"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_place_is_growthbooks(seed, unit, expected):
    # The cases of its own SDKs for hash version 2.
    assert place(seed, unit) == expected


def test_units_are_spread_evenly():
    places = Counter(int(place("demo:17", f"user-{n}") * 20) for n in range(20_000))
    assert chisquare([places[n] for n in range(20)]).pvalue > 0.001


def test_two_seeds_are_independent():
    arms = {"base": 1.0, "tuned": 1.0}
    table = Counter((choose_arm("one:1", f"u{n}", arms), choose_arm("two:1", f"u{n}", arms)) for n in range(10_000))
    rows = [[table[one, two] for two in arms] for one in arms]
    assert chi2_contingency(rows).pvalue > 0.001


@pytest.mark.parametrize("tuned", [0.05, 0.1, 0.5, 0.9])
def test_arms_get_the_share_of_their_weight(tuned):
    arms = Counter(choose_arm("s", f"user{n}", {"base": 1 - tuned, "tuned": tuned}) for n in range(20_000))
    assert chisquare([arms["base"], arms["tuned"]], [20_000 * (1 - tuned), 20_000 * tuned]).pvalue > 0.001


@given(st.text(), st.text(), weights)
def test_the_same_unit_always_gets_the_same_arm_and_never_one_without_weight(seed, unit, given_weights):
    arm = choose_arm(seed, unit, given_weights)
    assert arm == choose_arm(seed, unit, dict(reversed(given_weights.items())))
    assert given_weights[arm] > 0


@given(st.text(), weights, st.floats(0.1, 100))
def test_only_the_ratio_of_the_weights_counts(unit, given_weights, factor):
    scaled = {arm: weight * factor for arm, weight in given_weights.items()}
    edge = place("s", unit)
    near = any(
        abs(edge - sum(given_weights[a] for a in sorted(given_weights)[: i + 1]) / sum(given_weights.values())) < 1e-9
        for i in range(len(given_weights))
    )
    assert near or choose_arm("s", unit, scaled) == choose_arm("s", unit, given_weights)
