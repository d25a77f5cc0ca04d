"""Bounds of rare shares: they hold at every look, and close a guardrail that nothing ever touches."""

import numpy as np
import pytest
from scipy.special import betaln

from serve.experimentation.arms import Arm, binary_arm
from serve.experimentation.rare import PRIOR, difference_bounds, share_bounds, units_for
from serve.experimentation.verdict import Design, Metric, decide


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.5])
@pytest.mark.parametrize("shares", [False, True], ids=["yes or no", "shares"])
def test_the_true_share_is_left_out_at_some_look_in_no_more_runs_than_alpha(rate, shares):
    draw, runs, looks, alpha = np.random.default_rng(5), 1000, 1500, 0.05
    values = (draw.random((runs, looks)) < rate).astype(float)
    if shares:
        # Of the same mean, between 0 and 1.
        values = values * draw.random((runs, looks))
        rate = rate / 2
    n, total = np.arange(1, looks + 1), values.cumsum(axis=1)
    evidence = betaln(total + PRIOR, n - total + PRIOR) - betaln(PRIOR, PRIOR)
    evidence -= total * np.log(rate) + (n - total) * np.log1p(-rate)
    assert (evidence.max(axis=1) >= -np.log(alpha)).mean() <= alpha


def test_the_bounds_are_where_the_evidence_reaches_one_over_alpha():
    for n, total in ((1000, 0), (1000, 3), (40, 5.5), (7, 7)):
        low, high = share_bounds(n, total, 0.05)
        for end in (low, high):
            if 0 < end < 1:
                evidence = betaln(total + PRIOR, n - total + PRIOR) - betaln(PRIOR, PRIOR)
                evidence -= total * np.log(end) + (n - total) * np.log1p(-end)
                assert evidence == pytest.approx(-np.log(0.05), abs=1e-6)
        assert low <= total / n <= high
    assert share_bounds(0, 0, 0.05) == (0.0, 1.0)


def test_the_bounds_of_a_difference_are_turned_with_the_arms():
    one, other = Arm(500, 2.0, 2.0), Arm(400, 11.5, 9.0)
    low, high = difference_bounds(one, other, 0.05)
    assert (-high, -low) == pytest.approx(difference_bounds(other, one, 0.05))


def test_units_for_a_margin_do_however_the_units_are_drawn():
    for margin, share in ((0.01, 0.5), (0.05, 0.1)):
        least = units_for(margin, share, 0.05)
        # Drawn by chance, the rarer arm has enough of them in nearly every experiment.
        drawn = np.random.default_rng(1).binomial(least, share, 2000)
        bounds = {n: difference_bounds(Arm(0, 0, 0), binary_arm(n, 0), 0.05)[1] for n in set(drawn.tolist())}
        assert np.mean([bounds[n] >= margin for n in drawn.tolist()]) < 0.005
        assert difference_bounds(Arm(0, 0, 0), binary_arm(0.7 * least * share, 0), 0.05)[1] >= margin


def guarded(failures, planned=2000):
    """The verdict after 1,000 units in each arm: so many failed in the treated one, where 50 more were resolved."""
    design = Design(
        Metric("resolved", "binary"),
        (Metric("failed", "mean", False, 0.02, bounded=True),),
        {"base": 1.0, "tuned": 1.0},
        "base",
        "tuned",
        planned,
    )
    sums = {
        "resolved": {"base": binary_arm(1000, 20), "tuned": binary_arm(1000, 70)},
        "failed": {"base": binary_arm(1000, 0), "tuned": binary_arm(1000, failures)},
    }
    return decide(design, sums, {"base": 1000, "tuned": 1000})


def test_a_guardrail_that_nothing_touches_lets_the_better_arm_through():
    verdict = guarded(0)
    assert verdict.outcome == "better" and verdict.guardrails[0].guard == "safe"
    assert not verdict.guardrails[0].enough


def test_an_arm_that_fails_beside_one_that_never_does_is_harm_though_the_control_never_varies():
    assert guarded(100).outcome == "harm"


def test_a_few_failures_leave_it_open():
    verdict = guarded(12)
    assert verdict.outcome == "no_verdict" and verdict.guardrails[0].guard == "open"
