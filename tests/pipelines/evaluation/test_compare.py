import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cluster.errors import UserError
from pipelines.evaluation.compare import Interval, bootstrap, decide_better, difference, mean
from pipelines.recipe_file import load_recipe


def with_weights(values):
    return np.column_stack([values, np.ones(len(values))])


def alone(count):
    return [str(index) for index in range(count)]


def interval(low, high, groups=100):
    return Interval((low + high) / 2, low, high, groups, groups)


def test_it_agrees_with_scipys_bca():
    values = np.random.default_rng(5).exponential(size=80)
    ours = bootstrap(with_weights(values), mean, alone(80), resamples=20_000, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def covered(draw, truth, runs, seed):
    generator = np.random.default_rng(seed)
    hits = 0
    for run in range(runs):
        values, groups = draw(generator)
        found = bootstrap(with_weights(values), mean, groups, resamples=400, seed=run)
        hits += found.low <= truth <= found.high
    return hits / runs


def test_independent_examples_are_covered_as_promised():
    def draw(generator):
        # Skewed, as scores between 0 and 1 are.
        return generator.beta(1, 4, size=80), alone(80)

    assert 0.92 <= covered(draw, 0.2, 600, 3) <= 0.975


def test_groups_are_drawn_whole_and_one_example_at_a_time_would_lie():
    def clustered(generator):
        effects = np.repeat(generator.normal(size=40), 6)
        return effects + 0.3 * generator.normal(size=240), np.repeat(np.arange(40), 6).astype(str).tolist()

    def ignoring_groups(generator):
        return clustered(generator)[0], alone(240)

    assert covered(clustered, 0.0, 400, 3) >= 0.92
    assert covered(ignoring_groups, 0.0, 200, 3) < 0.7


def test_a_paired_difference_is_tighter_than_either_score():
    generator = np.random.default_rng(0)
    base = generator.uniform(size=60)
    tuned = base + 0.02 + 0.01 * generator.normal(size=60)
    paired = bootstrap(np.hstack([with_weights(base), with_weights(tuned)]), difference(mean, 2), alone(60), seed=4)
    single = bootstrap(with_weights(base), mean, alone(60), seed=4)
    assert paired.estimate == pytest.approx((tuned - base).mean())
    assert 0 < paired.low < paired.estimate < paired.high < 0.03
    assert single.high - single.low > 5 * (paired.high - paired.low)


def test_the_same_seed_gives_the_same_interval():
    values = with_weights(np.random.default_rng(0).normal(size=30))
    assert bootstrap(values, mean, alone(30), seed=9) == bootstrap(values, mean, alone(30), seed=9)
    assert bootstrap(values, mean, alone(30), seed=9) != bootstrap(values, mean, alone(30), seed=10)


def test_what_never_varies_is_a_point():
    found = bootstrap(with_weights(np.full(20, 0.25)), mean, alone(20))
    assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)


def test_one_group_carries_no_interval():
    found = bootstrap(with_weights(np.arange(20.0)), mean, ["same"] * 20)
    assert found.low == -np.inf and found.high == np.inf and found.groups == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 1000))
def test_a_mean_of_scores_has_its_interval_among_the_scores(values, seed):
    found = bootstrap(with_weights(np.array(values)), mean, alone(len(values)), resamples=200, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_better_needs_an_interval_beyond_zero_in_the_good_direction():
    assert decide_better({"rougeL": interval(0.01, 0.05)}, "rougeL", {}).better
    assert not decide_better({"rougeL": interval(-0.01, 0.05)}, "rougeL", {}).better
    assert not decide_better({"rougeL": interval(-0.05, -0.01)}, "rougeL", {}).better
    assert decide_better({"loss": interval(-0.5, -0.1)}, "loss", {}).better
    assert not decide_better({"loss": interval(0.1, 0.5)}, "loss", {}).better


@pytest.mark.parametrize(
    ("other", "better"),
    [
        (("bleu", -0.01, 0.1), True),
        (("bleu", -0.03, 0.1), False),
        (("loss", -0.5, 0.01), True),
        (("loss", -0.5, 0.03), False),
    ],
)
def test_no_other_metric_may_be_worse_by_more_than_the_margin(other, better):
    name, low, high = other
    decision = decide_better({"rougeL": interval(0.1, 0.2), name: interval(low, high)}, "rougeL", {name: 0.02})
    assert decision.better is better
    assert any(reason.startswith(name) for reason in decision.reasons) is not better


def test_each_guardrail_has_its_own_margin_and_what_is_none_decides_nothing():
    found = {"rougeL": interval(0.1, 0.2), "bleu": interval(-0.03, 0.1), "meteor": interval(-0.5, -0.4)}
    assert decide_better(found, "rougeL", {"bleu": 0.04}).better
    assert not decide_better(found, "rougeL", {"bleu": 0.02}).better
    assert not decide_better(found, "rougeL", {"bleu": 0.04, "meteor": 0.04}).better


def test_without_guardrails_of_its_own_a_recipe_guards_every_score_but_the_primary(recipe_file):
    plain = load_recipe(recipe_file(evaluate={"non_inferiority_margin": 0.01})).evaluate
    assert plain.margins == dict.fromkeys(("loss", "rouge1", "rouge2", "bleu", "meteor"), 0.01)
    assert load_recipe(recipe_file(evaluate={"guardrails": {"bleu": 0.1}})).evaluate.margins == {"bleu": 0.1}
    assert load_recipe(recipe_file(evaluate={"guardrails": {}})).evaluate.margins == {}


@pytest.mark.parametrize(
    ("guardrails", "told"),
    [({"rougeL": 0.1}, "names the primary metric rougeL"), ({"blue": 0.1}, "blue"), ({"bleu": -1}, "bleu")],
)
def test_a_guardrail_that_cannot_be_is_refused(recipe_file, guardrails, told):
    with pytest.raises(UserError, match=told):
        load_recipe(recipe_file(evaluate={"guardrails": guardrails}))


def test_a_handful_of_groups_decides_nothing():
    decision = decide_better({"rougeL": interval(0.1, 0.2, groups=4)}, "rougeL", {})
    assert not decision.better and "4 independent groups" in decision.reasons[0]
