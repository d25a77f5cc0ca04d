"""Texts are masked as they are written, and forgotten when they were kept long enough; figures stay."""

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
    assert forget_texts(workspace, "small", DAYS) == 10
    assert kept(rows) == ({"young", "another recipe's"}, {"young", "another recipe's"})
    assert len(rows(InteractionRow)) == 7 and {one.completion_tokens for one in rows(InteractionRow)} == {1}
    assert forget_texts(workspace, "small", DAYS) == 0


def test_a_remark_is_as_old_as_it_is_itself(workspace, rows, asked):
    asked("r", DAYS + 1)
    with workspace.session() as session:
        session.add(FeedbackRow(request_id="r", kind="flag", reason="wrong", created_at=now()))
    forget_texts(workspace, "small", DAYS)
    assert [one.reason for one in rows(FeedbackRow)] == [None, "wrong"]


def test_a_service_forgets_at_its_start_and_again(workspace, rows, asked):
    asked("old", DAYS + 1)
    thread = Forgetting(workspace, "small", DAYS, every_s=0.05)
    try:
        until(lambda: kept(rows)[0] == set(), "the first round")
        asked("older", DAYS + 2)
        until(lambda: kept(rows)[0] == set(), "another round")
    finally:
        thread.close()
    thread._thread.join(30)
    assert not thread._thread.is_alive()


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
    service_of(keep_texts_days=DAYS)
    until(lambda: kept(rows) == (set(), set()), "the texts' end")
