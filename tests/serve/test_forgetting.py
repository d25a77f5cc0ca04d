"""Texts are masked as they are written, and forgotten when they were kept long enough; figures stay."""

import asyncio
from datetime import timedelta

import pytest

from pipelines.records import FeedbackRow, InteractionRow, now
from serve import forgetting
from serve.feedback import FeedbackStore
from serve.forgetting import Forgetting, forget_texts
from serve.interactions import InteractionLog
from serve.schemas import FeedbackRequest
from tests.serve.test_interactions import row
from tests.waiting import until

PRIVATE = "Write to jane.doe@example.org, she knows."
MASKED = "Write to <email>, she knows."
DAYS = 30


@pytest.fixture
def asked(workspace):
    """`asked(id, days_ago, ...)`: an interaction with texts, and what a person wrote of it on the same day."""

    def add(request_id, days_ago, recipe_name="small"):
        at = now() - timedelta(days=days_ago)
        texts = {"messages": {"prompt": "What is it?"}, "answer": "A file.", "created_at": at}
        with workspace.session() as session:
            session.add(InteractionRow(**row(request_id, recipe_name=recipe_name, **texts)))
            session.add(FeedbackRow(request_id=request_id, kind="correction", correction="A tape.", created_at=at))

    return add


def kept(rows):
    """Requests whose texts there are, and those of which a person's words are."""
    answers = {one.request_id for one in rows(InteractionRow) if one.answer is not None or one.messages is not None}
    return answers, {one.request_id for one in rows(FeedbackRow) if one.correction is not None}


def test_a_masked_log_holds_no_personal_data_in_any_shape_of_prompt_nor_in_the_answer(workspace, rows):
    log = InteractionLog(workspace)
    chat = {"messages": [{"role": "user", "content": PRIVATE}]}
    log.add(keep_text="masked", **row("chat", messages=chat, answer=PRIVATE))
    log.add(keep_text="masked", **row("text", messages={"prompt": PRIVATE}, answer="I cannot help with that."))
    log.close()
    by_id = {one.request_id: one for one in rows(InteractionRow)}
    assert by_id["chat"].messages == {"messages": [{"role": "user", "content": MASKED}]}
    assert by_id["chat"].answer == MASKED
    assert by_id["text"].messages == {"prompt": MASKED} and by_id["text"].declined


def test_masked_feedback_holds_none_either(workspace, rows):
    store = FeedbackStore(workspace, "small", masked=True)
    store.answering("r", "u")
    store.add(FeedbackRequest(request_id="r", kind="correction", correction=PRIVATE, reason=PRIVATE))
    store.add(FeedbackRequest(request_id="r", kind="thumb_up"))
    (corrected, liked) = rows(FeedbackRow)
    assert (corrected.correction, corrected.reason) == (MASKED, MASKED)
    assert (liked.correction, liked.reason) == (None, None)


def test_what_is_older_is_forgotten_in_any_number_and_figures_stay(workspace, rows, asked, monkeypatch):
    monkeypatch.setattr(forgetting, "BATCH", 2)
    for number in range(5):
        asked(f"old-{number}", DAYS + 1)
    asked("young", DAYS - 1)
    asked("another recipe's", DAYS + 1, recipe_name="other")
    assert list(forget_texts(workspace, "small", DAYS)) == [2, 2, 1, 2, 2, 1]
    assert kept(rows) == ({"young", "another recipe's"}, {"young", "another recipe's"})
    assert len(rows(InteractionRow)) == 7 and {one.completion_tokens for one in rows(InteractionRow)} == {1}
    assert list(forget_texts(workspace, "small", DAYS)) == []


def test_a_remark_is_as_old_as_it_is_itself(workspace, rows, asked):
    asked("r", DAYS + 1)
    with workspace.session() as session:
        session.add(FeedbackRow(request_id="r", kind="flag", reason="wrong", created_at=now()))
    assert list(forget_texts(workspace, "small", DAYS)) == [1, 1]
    assert {one.kind: one.reason for one in rows(FeedbackRow)}["flag"] == "wrong"


def test_what_was_written_of_an_interaction_that_was_lost_goes_too(workspace, rows):
    with workspace.session() as session:
        at = now() - timedelta(days=DAYS + 1)
        session.add(FeedbackRow(request_id="lost", kind="flag", reason="wrong", created_at=at))
    assert list(forget_texts(workspace, "small", DAYS)) == [1]
    assert [one.reason for one in rows(FeedbackRow)] == [None]


@pytest.mark.sqlite
def test_what_is_to_be_forgotten_is_found_by_an_index(workspace, monkeypatch):
    from sqlalchemy import event

    asked = []
    event.listen(workspace.database, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    assert list(forget_texts(workspace, "small", DAYS)) == []
    ((query, values),) = [one for one in asked if "answer IS NOT NULL" in one[0]]
    with workspace.database.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
    assert "interactions_with_text" in str(plan)


def test_a_service_forgets_at_its_start_and_again(workspace, rows, asked):
    asked("old", DAYS + 1)
    counted = []
    thread = Forgetting(workspace, "small", DAYS, counted.append, every_s=0.05)
    try:
        until(lambda: kept(rows)[0] == set(), "the first round")
        asked("older", DAYS + 2)
        until(lambda: kept(rows)[0] == set(), "another round")
    finally:
        thread.close()
    assert not thread._thread.is_alive() and sum(counted) == 4


def test_a_database_that_is_away_is_asked_again(workspace, rows, asked, monkeypatch):
    asked("old", DAYS + 1)
    real, calls = forgetting.forget_texts, []

    def away_at_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError("away")
        return real(*arguments)

    monkeypatch.setattr(forgetting, "forget_texts", away_at_first)
    thread = Forgetting(workspace, "small", DAYS, every_s=0.05)
    try:
        until(lambda: kept(rows)[0] == set(), "the second round")
    finally:
        thread.close()


def test_a_service_with_a_limit_forgets(service_of, rows, asked):
    asked("old", DAYS + 1)
    service = service_of(keep_texts_days=DAYS)
    until(lambda: kept(rows) == (set(), set()), "the texts' end")
    until(lambda: b"sluice_texts_forgotten_total 2.0" in service.metrics.text(None), "their count")


@pytest.mark.parametrize("log_prompts", ["masked", False])
def test_a_service_that_does_not_keep_all_keeps_nothing_personal_of_what_passes_through_it(
    http, service_of, rows, log_prompts
):
    service = service_of(log_prompts=log_prompts, shadow=1.0)

    async def go():
        async with http(service) as client:
            question = [{"role": "user", "content": PRIVATE}]
            reply = await client.post("/v1/chat/completions", json={"messages": question, "max_tokens": 3})
            said = {"request_id": reply.json()["id"], "kind": "correction", "correction": PRIVATE, "reason": PRIVATE}
            assert (await client.post("/v1/feedback", json=said)).status_code == 200
            while service._shadow._running:
                await asyncio.wait(service._shadow._running)

    asyncio.run(go())
    until(lambda: len(rows(InteractionRow)) == 2, "the answer's row and its shadow's")
    (said,) = rows(FeedbackRow)
    assert (said.correction, said.reason) == (MASKED, MASKED)
    texts = [one.messages and one.messages["messages"][0]["content"] for one in rows(InteractionRow)]
    assert texts == ([MASKED, MASKED] if log_prompts else [None, None])
