from itertools import pairwise

import pytest

from pipelines.search import reading
from pipelines.search.history import fold
from tests.pipelines.search.planted import BEGAN, Story, halving, plan


def folded(story):
    return fold(story.sweep, story.events)


@pytest.fixture
def swept():
    return folded(halving())


def test_the_leader_went_furthest_whatever_others_had_earlier():
    story = Story()
    story.add("opened", **plan())
    for name, losses in {"trial-1": [1.0], "trial-2": [3.0, 2.0], "trial-3": [2.9, 2.0]}.items():
        story.add("proposed", name, values={}, origin="search")
        for step, loss in zip((8, 16), losses, strict=False):
            story.rung(name, step, loss)
    assert reading.leader(folded(story)).trial == "trial-2"


def test_the_leader_is_held_against_the_default_where_both_have_been(swept):
    gain = reading.against_default(swept)
    default = swept.trials["trial-1"]
    assert gain.step == default.step and gain.default == default.loss
    assert gain.loss == swept.of(gain.trial).loss_at(gain.step)
    assert gain.difference == pytest.approx(gain.loss - gain.default) and gain.difference < 0


def test_without_a_default_trial_nothing_is_held_against_it():
    story = Story()
    story.add("opened", **plan())
    story.add("proposed", "trial-1", values={"lora_r": 8}, origin="search")
    story.rung("trial-1", 8, 2.0)
    assert reading.against_default(folded(story)) is None


def test_a_sweep_that_has_only_opened_says_nothing_and_breaks_nothing():
    story = Story()
    story.add("opened", **plan())
    standing = folded(story)
    assert reading.leader(standing) is None and reading.against_default(standing) is None
    assert reading.rows(standing) == [] and reading.best_so_far(standing) == [] and reading.timeline(standing) == []


def test_costs_are_seconds_times_workers_times_the_price():
    story = halving(price_per_hour=3.0, workers=2)
    row = reading.rows(folded(story))[0]
    assert row.cost == pytest.approx(row.seconds / 3600 * 2 * 3.0)
    assert all(row.cost is None for row in reading.rows(folded(halving(price_per_hour=None))))


def test_the_best_so_far_goes_on_with_the_steps(swept):
    led = reading.best_so_far(swept)
    assert [best.at for best in led] == sorted(best.at for best in led)
    assert led[-1].trial == reading.leader(swept).trial and led[-1].step == 32
    for before, after in pairwise(led):
        assert after.step > before.step or after.loss < before.loss


def test_a_loss_that_is_no_number_leads_nowhere_and_draws_nothing():
    story = Story()
    story.add("opened", **plan())
    for name, loss in (("trial-1", float("nan")), ("trial-2", 2.0)):
        story.add("proposed", name, values={"lora_r": 8}, origin="search")
        story.rung(name, 8, loss)
    standing = folded(story)
    assert reading.leader(standing).trial == "trial-2"
    assert [best.trial for best in reading.best_so_far(standing)] == ["trial-2"]
    assert reading.curves(standing)["trial-1"] == []


def test_a_clones_curve_begins_at_its_parents_weights():
    story = Story()
    story.add("opened", **plan())
    story.add("proposed", "trial-1", values={}, origin="default")
    story.rung("trial-1", 8, 2.0)
    story.add("proposed", "trial-2", values={"lora_dropout": 0.1}, origin="clone", parent="trial-1", begins=8)
    story.rung("trial-2", 16, 1.9)
    assert [point[:2] for point in reading.curves(folded(story))["trial-2"]] == [(8, 2.0), (16, 1.9)]


def test_the_timeline_has_each_piece_once_turns_without_a_validation_too():
    story = Story()
    story.add("opened", **plan())
    story.add("proposed", "trial-1", values={}, origin="default")
    story.add("turn", "trial-1", began=BEGAN.timestamp(), seconds=5.0, place="node a, process 1")
    # Two validations within one piece: the last carries its seconds.
    story.rung("trial-1", 8, 2.0, seconds=0.0, began=BEGAN.timestamp() + 10)
    story.rung("trial-1", 16, 1.9, seconds=7.0, began=BEGAN.timestamp() + 10)
    standing = folded(story)
    spans = reading.timeline(standing)
    assert [(span.step, span.seconds) for span in spans] == [(None, 5.0), (16, 7.0)]
    assert sum(span.seconds for span in spans) == standing.seconds
    assert [best.at - BEGAN.timestamp() for best in reading.best_so_far(standing)] == [17.0, 17.0]


def test_wall_clock_counts_drivers_and_no_pause_between_them():
    story = Story()
    story.add("opened", **plan())
    story.add("proposed", "trial-1", values={}, origin="default")
    story.add("asked", "trial-1", by="jane", action="stop")
    story.add("opened", **plan())
    story.add("closed", because="all trials have ended")
    assert reading.driven_seconds(story.events) == 20.0
    assert reading.spent(folded(story), story.events).max_hours == 2.0


def test_states_are_counted_in_the_order_of_what_is_at_work(swept):
    assert reading.states(swept) == {"finished": 3, "stopped": 9}


def test_values_are_told_in_a_line():
    assert reading.told({}) == "the recipe's own values"
    assert reading.told({"learning_rate": 0.00031415926, "lora_r": 8}) == "learning_rate 0.0003142, lora_r 8"
    assert reading.told({"target_modules": ["q_proj"]}) == 'target_modules ["q_proj"]'
