"""What the database sums up: per unit, from its first exposure to the end, and in time that grows with the units."""

from datetime import timedelta

import pytest

from pipelines.recipe_experiment import Measure
from pipelines.records import ExperimentExposureRow, FeedbackRow
from serve.experimentation import lifecycle, sums
from serve.experimentation.adjustment import Paired
from serve.experimentation.arms import Arm
from tests.serve.experimentation.conftest import asked, happened


@pytest.fixture
def summed(workspace):
    """`summed(row, metric="event.x", ...)`: arm -> (units, total, squares)."""

    def read(row, **measure):
        with workspace.session() as session:
            found = sums.figures(session, row, Measure(**measure))
        return {arm: (one.n, one.total, one.squares) for arm, one in found.items()}

    return read


@pytest.fixture
def added(workspace):
    def add(*rows):
        with workspace.session() as session:
            session.add_all(rows)

    return add


def met(row, unit, arm, seconds=1):
    at = row.created_at + timedelta(seconds=seconds)
    return ExperimentExposureRow(experiment_id=row.id, unit=unit, arm=arm, created_at=at)


def test_values_are_summed_per_unit_before_they_are_summed_up(started, added, summed):
    row = started()
    at = row.created_at + timedelta(minutes=1)
    added(met(row, "a", "base"), met(row, "b", "base"), met(row, "c", "tuned"))
    added(*(happened(row, "a", "minutes", value, at + timedelta(seconds=value)) for value in (2.0, 4.0)))
    added(happened(row, "c", "minutes", 10.0, at))
    assert summed(row, metric="event.minutes") == {"base": (2, 1.0, 1.0), "tuned": (1, 1.0, 1.0)}
    assert summed(row, metric="event.minutes", per_unit="sum") == {"base": (2, 6.0, 36.0), "tuned": (1, 10.0, 100.0)}
    assert summed(row, metric="event.minutes", per_unit="mean") == {"base": (2, 3.0, 9.0), "tuned": (1, 10.0, 100.0)}
    assert summed(row, metric="event.other") == {"base": (2, 0.0, 0.0), "tuned": (1, 0.0, 0.0)}


def test_what_was_before_the_first_exposure_does_not_count_and_is_told(started, added, summed, workspace):
    row = started()
    added(met(row, "a", "base", seconds=60))
    added(
        happened(row, "a", "resolved", 1.0, row.created_at + timedelta(seconds=59)),
        happened(row, "nobody", "resolved", 1.0, row.created_at + timedelta(seconds=90)),
        happened(row, "a", "resolved", 1.0, row.created_at - timedelta(days=9)),
    )
    assert summed(row, metric="event.resolved") == {"base": (1, 0.0, 0.0)}
    with workspace.session() as session:
        # Of an event from before the start nobody would expect that it counts.
        assert sums.set_aside(session, row, Measure(metric="event.resolved")) == 2


def test_what_comes_after_the_end_does_not_count(started, added, summed, workspace):
    row = started()
    added(met(row, "a", "base", seconds=0))
    lifecycle.stop(workspace, "small", "ada", "enough")
    row = lifecycle.latest(workspace, "small")
    # A gateway may not have read yet that it is over.
    added(met(row, "late", "tuned", seconds=3600))
    added(happened(row, "a", "resolved", 1.0, row.ended_at - timedelta(milliseconds=1)))
    added(happened(row, "a", "again", 1.0, row.ended_at + timedelta(seconds=1)))
    assert summed(row, metric="event.resolved") == {"base": (1, 1.0, 1.0)}
    assert summed(row, metric="event.again") == {"base": (1, 0.0, 0.0)}


def test_requests_and_feedback_are_those_that_the_experiment_assigned(started, added, summed):
    row = started()
    added(met(row, "a", "base"), met(row, "b", "tuned"))
    added(
        asked(row, "a", "base", 500, number=1),
        asked(row, "a", "base", number=2, total_ms=5001.0, finish_reason="length"),
        asked(row, "a", "tuned", 500, number=3, experiment_id=None),
        asked(row, "b", "tuned", 500, number=4, shadow_of="request-a-1"),
        asked(row, "b", "tuned", number=5, declined=True),
    )
    added(*(FeedbackRow(request_id="request-b-5", kind="thumb_down") for _ in range(2)))
    zero = {"base": (1, 0.0, 0.0), "tuned": (1, 0.0, 0.0)}
    assert summed(row, metric="requests.failed", per_unit="mean") == zero | {"base": (1, 0.5, 0.25)}
    assert summed(row, metric="requests.slow", over_ms=5000, per_unit="mean") == zero | {"base": (1, 0.5, 0.25)}
    assert summed(row, metric="requests.cut") == zero | {"base": (1, 1.0, 1.0)}
    assert summed(row, metric="requests.declined") == zero | {"tuned": (1, 1.0, 1.0)}
    # Two thumbs for one answer are one answer.
    assert summed(row, metric="feedback.thumb_down", per_unit="sum") == zero | {"tuned": (1, 1.0, 1.0)}
    # Of two corrections of one answer the larger counts; the unit's other answer was left as it was.
    added(*(FeedbackRow(request_id="request-a-1", kind="correction", edited=share) for share in (0.25, 0.5)))
    assert summed(row, metric="feedback.edited", per_unit="mean") == zero | {"base": (1, 0.25, 0.0625)}
    # How much this one changed nobody knows.
    added(FeedbackRow(request_id="request-a-1", kind="correction"))
    assert summed(row, metric="feedback.edited", per_unit="sum") == zero | {"base": (1, 1.0, 1.0)}


@pytest.mark.sqlite
def test_sums_are_looked_up_by_experiment_and_unit(started, workspace):
    from sqlalchemy import text

    started()
    plan = "EXPLAIN QUERY PLAN SELECT * FROM interactions WHERE experiment_id = 1 AND unit = 'a'"
    with workspace.session() as session:
        told = str(session.execute(text(plan)).all())
    # By the experiment alone, every unit would read all of it.
    assert "interactions_by_experiment (experiment_id=? AND unit=?)" in told


def test_what_a_unit_did_before_the_start_stands_beside_what_it_did_since(started, added, workspace):
    row = started()
    added(met(row, "a", "base"), met(row, "b", "base"), met(row, "c", "tuned"))
    after, before = row.created_at + timedelta(minutes=1), row.created_at - timedelta(days=1)
    added(happened(row, "a", "minutes", 3.0, after), happened(row, "b", "minutes", 5.0, after))
    added(*(happened(row, "a", "minutes", 2.0, before - timedelta(hours=hour)) for hour in range(2)))
    # Too long ago, after the start but before it met its arm, and of nobody who is in.
    added(happened(row, "a", "minutes", 9.0, row.created_at - timedelta(days=8)))
    added(happened(row, "c", "minutes", 9.0, row.created_at + timedelta(milliseconds=1)))
    added(happened(row, "nobody", "minutes", 9.0, before))
    with workspace.session() as session:
        found = sums.beside_before(session, row, Measure(metric="event.minutes", per_unit="sum"), 7)
    base, tuned = found["base"], found["tuned"]
    assert (base.metric, base.covariate, base.products) == (Arm(2, 8.0, 34.0), Arm(2, 4.0, 16.0), 12.0)
    assert (tuned.metric, tuned.covariate, tuned.products) == (Arm(1, 0.0, 0.0), Arm(1, 0.0, 0.0), 0.0)


def test_requests_from_before_are_the_recipes_whatever_arm_answered(started, added, workspace):
    row = started()
    before = row.created_at - timedelta(hours=1)
    added(met(row, "a", "base"))
    added(
        asked(row, "a", "base", 500, number=1),
        asked(row, "a", "tuned", 500, number=2, experiment_id=None, created_at=before),
        asked(row, "a", "tuned", number=3, experiment_id=None, created_at=before),
        asked(row, "a", "tuned", 500, number=4, shadow_of="another", created_at=before),
        asked(row, "a", "tuned", 500, number=5, recipe_name="another", created_at=before),
    )
    with workspace.session() as session:
        found = sums.beside_before(session, row, Measure(metric="requests.failed", per_unit="mean"), 1)
    assert found == {"base": Paired(Arm(1, 1.0, 1.0), Arm(1, 0.5, 0.25), 0.5)}


def test_of_few_units_each_counts_once_its_hours_are_over_with_what_it_did_in_them(started, added, workspace):
    row = started()
    added(*(met(row, unit, arm, seconds) for seconds, unit, arm in [(1, "a", "base"), (2, "b", "tuned")]))
    added(met(row, "c", "tuned", seconds=3), met(row, "d", "base", seconds=4), met(row, "e", "base", seconds=1800))
    hour = timedelta(hours=1)
    added(
        happened(row, "a", "resolved", 1.0, row.created_at + hour),
        happened(row, "b", "resolved", 1.0, row.created_at + 2 * hour),
        happened(row, "c", "resolved", 1.0, row.created_at),
        happened(row, "d", "resolved", 0.0, row.created_at + hour),
    )
    # It happened in time, and was told of too late.
    late = happened(row, "d", "resolved", 1.0, row.created_at + hour / 2)
    late.created_at = row.created_at + 2 * hour
    added(late)
    measure = Measure(metric="event.resolved")

    def settled(minutes, most=40):
        at = row.created_at + timedelta(minutes=minutes)
        with workspace.session() as session:
            return sums.settled(session, row, measure, hours=1, at=at, most=most).units

    assert settled(30) == []
    # b resolved too late, c before it had met its arm, d by nothing.
    assert settled(61) == [("base", True), ("tuned", False), ("tuned", False), ("base", False)]
    assert settled(100) == [*settled(61), ("base", False)] and settled(100, most=2) == settled(61)[:2]


def test_after_the_end_no_further_unit_settles(started, added, workspace):
    row = started()
    added(met(row, "a", "base", seconds=0))
    lifecycle.stop(workspace, "small", "ada", "enough")
    row = lifecycle.latest(workspace, "small")
    with workspace.session() as session:
        at = row.created_at + timedelta(days=9)
        assert sums.settled(session, row, Measure(metric="event.resolved"), hours=1, at=at, most=9).units == []


@pytest.mark.parametrize("metric", ["feedback.flag", "feedback.edited", "requests.cut"])
def test_of_few_units_feedback_and_requests_count_where_they_are_known_in_time(started, added, workspace, metric):
    row = started()
    added(met(row, "a", "base", seconds=0), met(row, "b", "tuned", seconds=0))
    added(asked(row, "a", "base", finish_reason="length"), asked(row, "b", "tuned"))
    for unit, hours in (("a", 0.5), ("b", 2)):
        at = row.created_at + timedelta(hours=hours)
        added(
            *(FeedbackRow(request_id=f"request-{unit}-0", kind=kind, created_at=at) for kind in ("flag", "correction"))
        )
    with workspace.session() as session:
        at = row.created_at + timedelta(hours=3)
        found = sums.settled(session, row, Measure(metric=metric), hours=1, at=at, most=9)
    assert found.units == [("base", True), ("tuned", False)]
    assert found.late == (metric != "requests.cut")
