"""How each arm has answered lately."""

from datetime import timedelta

import pytest

from pipelines.records import FeedbackRow, InteractionRow, now
from serve.arm_figures import arm_figures


@pytest.fixture
def kept(workspace):
    """`kept(arm, ...)`: an interaction and what was said of it, some minutes ago."""
    made = []

    def add(arm, *said, minutes=5, recipe_name="small", **columns):
        made.append(f"request-{len(made)}")
        answered = {"first_token_ms": 100.0, "total_ms": 1100.0, "completion_tokens": 11, "status": 200} | columns
        row = InteractionRow(
            request_id=made[-1],
            recipe_name=recipe_name,
            unit="u",
            arm=arm,
            model=arm,
            prompt_tokens=3,
            created_at=now() - timedelta(minutes=minutes),
            **answered,
        )
        opinions = [FeedbackRow(request_id=made[-1], kind=kind, edited=edited) for kind, edited in said]
        with workspace.session() as session:
            session.add_all([row, *opinions])

    return add


def test_each_arm_has_its_load_its_times_and_what_people_said(workspace, kept):
    for milliseconds in range(100, 200):
        kept("base", first_token_ms=float(milliseconds), total_ms=1000.0 + milliseconds)
    kept("tuned", ("thumb_up", None), ("thumb_up", None), ("correction", 0.25))
    kept("tuned", ("correction", 0.75))
    kept("tuned", status=500, first_token_ms=None, total_ms=90_000.0, completion_tokens=0)
    kept("tuned", status=499, total_ms=5.0, completion_tokens=1)
    # None of these: too old, another recipe's, an answer that nobody saw.
    kept("base", ("flag", None), minutes=120)
    kept("base", ("flag", None), recipe_name="other")
    kept("base", ("flag", None), shadow_of="request-0")

    base, tuned = arm_figures(workspace, "small", now() - timedelta(hours=1))
    assert (base.arm, base.requests, base.failed, base.left, base.opinions, base.edited) == (
        "base",
        100,
        0,
        0,
        {},
        None,
    )
    assert base.first_token_ms == pytest.approx((149.5, 194.05))
    assert base.total_ms == pytest.approx((1149.5, 1194.05))
    assert base.tokens_per_second == pytest.approx(10.0)
    assert (tuned.arm, tuned.requests, tuned.failed, tuned.left) == ("tuned", 4, 1, 1)
    # What failed or was left is no whole answer.
    assert tuned.total_ms == pytest.approx((1100.0, 1100.0))
    # Of whoever says the same twice of an answer it is one answer.
    assert tuned.opinions == {"thumb_up": 1, "correction": 2} and tuned.edited == pytest.approx(0.5)


def test_of_several_corrections_of_an_answer_the_largest_counts_and_an_unknown_one_is_none(workspace, kept):
    kept("tuned", ("correction", 0.1), ("correction", 0.4), ("correction", None))
    kept("tuned", ("correction", None))
    kept("base", ("correction", None))
    base, tuned = arm_figures(workspace, "small", now() - timedelta(hours=1))
    assert tuned.opinions == {"correction": 2} and tuned.edited == pytest.approx(0.4)
    assert base.opinions == {"correction": 1} and base.edited is None


def test_times_are_those_of_the_latest_and_counts_of_all(workspace, kept, monkeypatch):
    monkeypatch.setattr("serve.arm_figures.LATEST", 3)
    for minutes in range(1, 7):
        kept("base", minutes=minutes, first_token_ms=100.0 * minutes, total_ms=5000.0)
    kept("tuned", minutes=30)
    base, tuned = arm_figures(workspace, "small", now() - timedelta(hours=1))
    assert base.requests == 6 and base.first_token_ms == pytest.approx((200.0, 290.0))
    assert tuned.requests == 1 and tuned.first_token_ms == pytest.approx((100.0, 100.0))


def test_where_nothing_was_generated_there_are_no_times(workspace, kept):
    assert arm_figures(workspace, "small", now() - timedelta(hours=1)) == []
    kept("tuned", status=500, first_token_ms=None, completion_tokens=0)
    (tuned,) = arm_figures(workspace, "small", now() - timedelta(hours=1))
    assert (tuned.first_token_ms, tuned.total_ms, tuned.tokens_per_second, tuned.failed) == (None, None, None, 1)


@pytest.mark.sqlite
def test_all_is_found_by_an_index(workspace):
    from sqlalchemy import event, text

    asked = []
    event.listen(workspace.database, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    arm_figures(workspace, "small", now())
    plans = []
    with workspace.database.connect() as connection:
        for statement, values in list(asked):
            plans += [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert connection.execute(text("SELECT count(*) FROM interactions")).scalar() == 0
    assert len([plan for plan in plans if "interactions_by_arm" in plan]) == 2
    assert not [plan for plan in plans if plan.startswith("SCAN interactions") and "INDEX" not in plan]
