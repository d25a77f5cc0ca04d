import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from serve.experimentation.arms import Arm, binary_arm
from serve.experimentation.safe_test import blocks_of
from serve.experimentation.sequential import bound, interval
from serve.experimentation.verdict import Design, Metric, decide

SOLVED = Metric("solved", "binary", margin=0.02)
ERRORS = Metric("errors", "binary", higher_is_better=False, margin=0.02)
LATENCY = Metric("latency_s", "mean", higher_is_better=False, margin=0.2)
EVEN = {"base": 1.0, "tuned": 1.0}


def design(primary=SOLVED, guardrails=(ERRORS, LATENCY), planned=20_000, **changed):
    fixed = {"weights": EVEN, "control": "base", "treated": "tuned", **changed}
    return Design(primary, tuple(guardrails), planned=planned, **fixed)


def rates(n, base, tuned):
    return {"base": binary_arm(n, round(n * base)), "tuned": binary_arm(n, round(n * tuned))}


def means(n, base, tuned, sd=1.0):
    return {arm: Arm(n, n * mean, (n - 1) * sd**2 + n * mean**2) for arm, mean in (("base", base), ("tuned", tuned))}


def seen(n=10_000, solved=(0.5, 0.5), errors=(0.05, 0.05), latency=(2.0, 2.0)):
    return {"solved": rates(n, *solved), "errors": rates(n, *errors), "latency_s": means(n, *latency)}


def verdict(statistics, n=10_000, of=None, exposures=None):
    return decide(of or design(), statistics, exposures or {"base": n, "tuned": n})


def states(found):
    return {reading.metric.name: reading.guard for reading in found.guardrails}


def test_better_needs_the_primary_beyond_zero_and_every_guardrail_safe():
    found = verdict(seen(solved=(0.5, 0.55)))
    assert found.outcome == "better" and states(found) == {"errors": "safe", "latency_s": "safe"}
    assert found.sentence.startswith("tuned is better than base: solved +0.05 [")
    assert found.primary.p < 0.001 and found.primary.low > 0


def test_a_guardrail_that_is_still_open_holds_the_promotion_back():
    # Errors +1.5 points with a margin of 2: neither safe nor harmed.
    found = verdict(seen(5000, solved=(0.5, 0.55), errors=(0.05, 0.065)), 5000)
    assert found.outcome == "undecided" and states(found)["errors"] == "open"
    assert "errors may still be worse than bearable" in found.sentence


def test_at_the_planned_units_an_open_guardrail_ends_it_without_a_verdict():
    found = verdict(seen(10_000, solved=(0.5, 0.55), errors=(0.05, 0.067)))
    assert found.outcome == "no_verdict" and "not to be shipped" in found.sentence


@pytest.mark.parametrize(
    ("changed", "name"), [({"errors": (0.05, 0.10)}, "errors"), ({"latency": (2.0, 2.5)}, "latency_s")]
)
def test_a_guardrail_beyond_its_margin_is_harm_whatever_the_primary_says(changed, name):
    found = verdict(seen(solved=(0.5, 0.6), **changed))
    assert found.outcome == "harm" and states(found)[name] == "harmed"
    assert found.sentence.startswith(f"tuned is worse than base by more than is bearable: {name} +")


def test_harm_beside_a_control_without_a_single_error_is_seen():
    found = verdict(seen(5000, solved=(0.5, 0.55), errors=(0.0, 0.5)), 5000)
    assert found.outcome == "harm" and states(found)["errors"] == "harmed"


def test_a_guardrail_that_was_always_zero_is_not_safe_yet():
    found = verdict(seen(solved=(0.5, 0.55)) | {"latency_s": means(10_000, 0.0, 0.0, sd=0.0)})
    assert found.outcome == "no_verdict" and states(found)["latency_s"] == "open"


def test_worse_by_less_than_the_margin_is_no_harm():
    found = verdict(seen(100_000, errors=(0.05, 0.06)), 100_000, of=design(planned=1_000_000))
    assert states(found)["errors"] == "safe" and found.guardrails[0].low > 0


@pytest.mark.parametrize(("primary", "base", "tuned"), [(SOLVED, 0.55, 0.5), (ERRORS, 0.05, 0.1)])
def test_worse_is_beyond_zero_on_the_bad_side(primary, base, tuned):
    statistics = {primary.name: rates(10_000, base, tuned)}
    assert verdict(statistics, of=design(primary, ())).outcome == "worse"
    turned = {primary.name: rates(10_000, tuned, base)}
    assert verdict(turned, of=design(primary, ())).outcome == "better"


def test_where_less_is_better_a_lower_mean_is_better():
    found = verdict({"latency_s": means(10_000, 2.0, 1.8)}, of=design(LATENCY, ()))
    assert found.outcome == "better" and found.primary.difference < 0 and found.primary.high < 0


def test_the_end_without_a_difference_is_non_inferior_if_the_margin_is_excluded():
    found = verdict(seen())
    assert found.outcome == "non_inferior" and "tuned is not worse by more than 0.02" in found.sentence
    narrow = verdict(seen(), of=design(Metric("solved", "binary", margin=0.001)))
    assert narrow.outcome == "no_verdict" and "neither a difference nor its absence" in narrow.sentence


def test_before_the_planned_units_no_difference_means_go_on():
    found = verdict(seen(9000), 9000)
    assert found.outcome == "undecided" and "after 18000 of 20000 units" in found.sentence


def test_a_wrong_sample_ratio_blocks_everything():
    found = verdict(seen(solved=(0.5, 0.6), errors=(0.05, 0.2)), exposures={"base": 10_000, "tuned": 9400})
    assert found.outcome == "blocked" and found.sample_ratio.short == "tuned"
    assert "arm tuned has 9400 units" in found.sentence


def test_too_little_is_said_and_decides_nothing():
    found = verdict(seen(40, solved=(0.1, 0.9), errors=(0.0, 0.9)), 40)
    assert found.outcome == "undecided" and not found.primary.enough
    assert (found.primary.p, found.primary.low, found.primary.high) == (1.0, -np.inf, np.inf)
    assert "solved has 40 and 40 units; 100 together are needed" in found.sentence
    assert states(found) == {"errors": "open", "latency_s": "open"}


def test_a_metric_that_nobody_has_yet_is_too_little():
    found = verdict({}, of=design())
    assert found.outcome == "undecided" and found.primary.control_n == 0


def test_a_guardrail_without_figures_stays_open():
    found = verdict({"solved": rates(5000, 0.5, 0.6)}, 5000)
    assert found.outcome == "undecided" and states(found)["latency_s"] == "open"


def test_the_intervals_are_those_of_the_sequence():
    found = verdict(seen(solved=(0.5, 0.52)))
    arms = rates(10_000, 0.5, 0.52)
    low, high = interval(design().plan, arms["base"], arms["tuned"], "binary")
    assert (found.primary.low, found.primary.high) == (low, high)
    assert found.primary.worst == bound(design().plan, arms["base"], arms["tuned"], "binary", -1)
    assert (found.primary.control_n, found.primary.treated_n) == (10_000, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.integers(50, 9000), st.floats(0, 0.1))
def test_to_count_failures_where_less_is_better_changes_no_verdict(base, tuned, n, margin):
    wins, losses = (Metric("m", "binary", up, margin) for up in (True, False))
    counted = rates(n, base, tuned)
    turned = {arm: binary_arm(n, n - of.total) for arm, of in counted.items()}
    for of in (lambda metric: design(metric, ()), lambda metric: design(LATENCY, (metric,))):
        plain = verdict({"m": counted, "latency_s": means(n, 2, 2)}, n, of(wins))
        other = verdict({"m": turned, "latency_s": means(n, 2, 2)}, n, of(losses))
        assert plain.outcome == other.outcome and states(plain) == states(other)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.integers(100, 20_000))
def test_swapping_the_arms_swaps_better_and_worse(base, tuned, n):
    there, back = (
        verdict({"solved": rates(n, *pair)}, n, design(SOLVED, ())) for pair in ((base, tuned), (tuned, base))
    )
    swapped = {"better": "worse", "worse": "better"}
    if "better" in (there.outcome, back.outcome) or "worse" in (there.outcome, back.outcome):
        assert back.outcome == swapped[there.outcome]


def test_several_treated_arms_share_alpha_out():
    three = {"base": 1.0, "tuned": 1.0, "other": 1.0, "off": 0.0}
    assert design(weights=three).plan.alpha == 0.025 and design().plan.alpha == 0.05


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"guardrails": (SOLVED,)}, "metric solved is named twice"),
        ({"treated": "new"}, "arm new has no weight"),
        ({"treated": "base"}, "cannot be compared with itself"),
        ({"planned": 150}, "150 planned units are fewer than the 200"),
        ({"planned": 50}, "solved lies not between 0 and 1, and takes at least 200 units; errors lies"),
        ({"planned": 1900, "weights": {"base": 0.95, "tuned": 0.05}}, "1900 planned units are fewer than the 2000"),
        ({"alpha": 0.0}, "alpha is 0 and must lie between 0 and 0.5"),
        ({"weights": {"base": 2.0, "tuned": -1.0}}, "arm tuned has a weight below 0"),
        ({"weights": EVEN | {"off": float("nan")}}, "arm off has a weight below 0"),
    ],
)
def test_a_design_that_cannot_decide_is_refused(changed, told):
    with pytest.raises(UserError, match=told):
        design(**changed)


def test_all_that_is_wrong_with_a_design_is_told_at_once():
    with pytest.raises(UserError, match="arm new has no weight; alpha is 1"):
        design(treated="new", alpha=1.0)


@pytest.mark.parametrize("margin", [-0.01, float("nan")])
def test_a_negative_margin_is_refused(margin):
    with pytest.raises(UserError, match="Metric solved: the margin"):
        Metric("solved", "binary", margin=margin)


FLAGGED = Metric("flagged", "binary", higher_is_better=False, margin=0.5, bounded=True)


def few(primary=FLAGGED, guardrails=(), planned=40, **changed):
    return design(primary, guardrails, planned, **changed)


def among_few(pairs, of=None, **last):
    """The verdict on pairs of units: whether the control's and the treated one's succeeded."""
    blocks = blocks_of((arm, success) for pair in pairs for arm, success in enumerate(pair))
    return decide(of or few(), {}, {"base": len(pairs), "tuned": len(pairs)}, blocks=blocks, **last)


def test_of_few_units_a_large_difference_is_shown_by_the_safe_test():
    found = among_few([(1, 0)] * 3)
    assert found.outcome == "undecided" and 0.05 < found.primary.p < 1
    found = among_few([(1, 0)] * 5)
    assert found.outcome == "better" and found.primary.p < 0.05 and found.primary.difference == -1
    # Its exact interval asks for more, which the sentence does not hide.
    assert found.primary.low < -1 + 1e-9 < 0 < found.primary.high
    assert found.sentence.endswith(f"p {found.primary.p:.2g} by the safe test")
    assert among_few([(0, 1)] * 5).outcome == "worse"


def test_of_few_units_later_ones_take_back_what_the_first_ones_said():
    found = among_few([(1, 0)] * 5 + [(0, 1)] * 6)
    assert found.outcome == "undecided" and found.primary.sign == 0


def test_the_end_of_few_units_is_non_inferior_only_where_the_exact_interval_says_so():
    found = among_few([(0, 0)] * 20)
    assert found.outcome == "non_inferior" and found.primary.worst > -0.5
    narrow = Metric("flagged", "binary", higher_is_better=False, margin=0.1, bounded=True)
    assert among_few([(0, 0)] * 20, few(narrow)).outcome == "no_verdict"
    assert among_few([(0, 0)] * 5, last=True).outcome == "no_verdict"


def test_without_a_unit_that_counts_nothing_is_said_of_few():
    found = among_few([])
    assert found.outcome == "undecided" and "`settle_hours`" in found.sentence and not found.primary.enough
    assert (found.primary.low, found.primary.high) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"planned": 7}, "7 planned units are fewer than the 8 of any"),
        ({"planned": 29, "weights": {"base": 0.9, "tuned": 0.1}}, "29 planned units are fewer than the 30 of any"),
        ({"guardrails": (LATENCY,)}, "latency_s lies not between 0 and 1, and takes at least 200 units"),
    ],
)
def test_too_few_for_any_difference_are_refused(changed, told):
    with pytest.raises(UserError, match=told):
        few(**changed)


def test_the_two_bounds_of_a_bounded_guardrail_share_alpha():
    bounded = Metric("failed", "binary", higher_is_better=False, margin=0.02, bounded=True)
    of = design(SOLVED, (bounded,))
    statistics = seen() | {"failed": rates(10_000, 0.05, 0.05)}
    assert of.guard_plan(bounded).alpha == of.plan.alpha / 2 and of.guard_plan(LATENCY) == of.plan
    reading = verdict(statistics, of=of).guardrails[0]
    arms = [statistics["failed"][arm] for arm in ("base", "tuned")]
    assert reading.worst == -bound(of.guard_plan(bounded), *arms, "binary", 1)
