"""The interval of a share holds however often one looks."""

import random
from math import factorial

import pytest

from pipelines.evaluation.preference import share_interval

pytestmark = pytest.mark.slow


def test_nothing_and_everything_have_a_bound_at_their_end():
    assert share_interval(0, 0) == (0.0, 1.0)
    low, high = share_interval(0, 10)
    assert low == 0.0 and 0.3 < high < 0.5
    assert share_interval(10, 10) == (pytest.approx(1 - high), 1.0)


def test_it_narrows_around_what_was_seen():
    widths = []
    for times in (1, 10, 100):
        low, high = share_interval(7 * times, 10 * times)
        assert low < 0.7 < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_its_bounds_are_where_the_mixture_is_as_much_likelier_as_alpha_says():
    for share in share_interval(7, 10, alpha=0.1):
        # Of seven and three: the mean likelihood over all shares is 7! 3! / 11!.
        assert factorial(7) * factorial(3) / factorial(11) == pytest.approx(10 * share**7 * (1 - share) ** 3)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_who_looks_after_every_judgement_is_wrong_as_rarely_as_promised(share):
    draw = random.Random(3)
    wrong = 0
    for _ in range(200):
        preferred = 0
        for judged in range(1, 101):
            preferred += draw.random() < share
            low, high = share_interval(preferred, judged, alpha=0.1)
            if not low <= share <= high:
                wrong += 1
                break
    # 20 at most are expected; more than 31 would come once in 200 tries.
    assert wrong <= 31


def test_more_than_all_is_refused():
    with pytest.raises(ValueError, match="11 of 10"):
        share_interval(11, 10)
