import pytest

from pipelines.records import FeedbackRow, InteractionRow
from serve.exposures import unit_of
from ui.panel import backend, gateway
from ui.panel.gateway import Answer, Conversation, Opinion, Round, user_of


def interaction(chat, number, arm, *, status=200, prompts=True, **fields):
    columns = {
        "request_id": f"{chat}-{number}-{arm}",
        "recipe_name": "docstrings",
        "unit": unit_of(user_of(chat, number)),
        "arm": arm,
        "model": f"docstrings-{arm}",
        "messages": {"messages": [{"role": "user", "content": f"question {number}"}]} if prompts else None,
        "answer": f"{arm} {number}" if prompts else None,
        "finish_reason": "stop",
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "first_token_ms": 3.0,
        "total_ms": 9.0,
        "status": status,
    }
    return InteractionRow(**columns | fields)


def store(workspace, *rows):
    with workspace.session() as session:
        session.add_all(rows)


def test_a_conversation_is_read_back_round_by_round(workspace):
    store(
        workspace,
        interaction("c1", 1, "base"),
        interaction("c1", 1, "tuned"),
        interaction("c1", 2, "tuned"),
        interaction("c2", 1, "base"),
    )
    rounds = gateway.conversation("docstrings", "c1").value.rounds
    assert [(r.question, sorted(r.answers)) for r in rounds] == [
        ("question 1", ["base", "tuned"]),
        ("question 2", ["tuned"]),
    ]
    assert rounds[0].answers["base"].text == "base 1"
    assert rounds[0].answers["base"].tokens == 7


def test_another_recipes_conversation_is_not_shown(workspace):
    store(workspace, interaction("c3", 1, "base"))
    assert gateway.conversation("other", "c3").value.rounds == []


def test_an_answer_that_broke_off_says_so_when_read_back(workspace):
    store(workspace, interaction("c4", 1, "base", status=499))
    answer = gateway.conversation("docstrings", "c4").value.rounds[0].answers["base"]
    assert answer.state == "failed"
    assert "499" in answer.problem.message


def test_texts_that_are_not_kept_are_told_and_go_to_no_model(workspace):
    store(workspace, interaction("c5", 1, "base", prompts=False), interaction("c5", 2, "base"))
    conversation = gateway.conversation("docstrings", "c5").value
    (first, _) = conversation.rounds
    assert "is not kept" in first.question and "is not kept" in first.answers["base"].text
    asked = [message["content"] for message in conversation._messages("base", "three")]
    assert asked == ["question 2", "base 2", "three"]


def test_each_side_is_told_what_it_answered_and_not_what_broke_off():
    past = [
        Round(1, "one", {"base": Answer("b1", "done"), "tuned": Answer("half", "failed")}),
        Round(2, "two", {"base": Answer("b2", "done"), "tuned": Answer("t2", "done")}),
    ]
    conversation = Conversation("chat", past)
    assert [m["content"] for m in conversation._messages("base", "three")] == ["one", "b1", "two", "b2", "three"]
    assert [m["content"] for m in conversation._messages("tuned", "three")] == ["two", "t2", "three"]


def test_a_second_question_waits_for_the_first_ones_answers():
    conversation = Conversation("chat", [Round(1, "one", {"base": Answer("", "writing")})])
    assert conversation.writing
    assert not conversation.ask("two")
    assert len(conversation.rounds) == 1


def test_a_conversation_ends_after_so_many_rounds():
    conversation = Conversation("chat", [Round(gateway.MAX_ROUNDS, "q", {"base": Answer("a", "done")})])
    assert not conversation.ask("one more")


def test_the_last_thumb_and_the_last_flag_count(workspace):
    store(
        workspace,
        FeedbackRow(request_id="r1", kind="thumb_up"),
        FeedbackRow(request_id="r1", kind="flag", reason="invents"),
        FeedbackRow(request_id="r1", kind="thumb_down"),
        FeedbackRow(request_id="r2", kind="thumb_up"),
    )
    assert gateway.opinions(["r1"]).value == {"r1": Opinion("thumb_down", "invents")}


@pytest.mark.parametrize("kind", ["thumb_up", "flag"])
def test_feedback_to_a_service_that_is_away_names_the_remedy(kind, monkeypatch):
    monkeypatch.setenv("SLUICE_GATEWAY", "http://127.0.0.1:9")
    problem = gateway.give_feedback("r1", kind, "why")
    assert "cannot be reached" in problem.message
    assert "sluice serve" in problem.remedy


def test_a_service_that_is_away_is_known_as_that(monkeypatch):
    monkeypatch.setenv("SLUICE_GATEWAY", "http://127.0.0.1:9")
    backend.known.clear()
    known = gateway.service()
    assert known.value is None
    assert "sluice serve" in known.problem.remedy


def test_a_conversation_that_could_not_be_read_is_read_once_the_database_is_back(workspace):
    from sqlalchemy import text

    store(workspace, interaction("c6", 1, "base"))
    with workspace.session() as session:
        session.execute(text("ALTER TABLE interactions RENAME TO away"))
    away = gateway.conversation("docstrings", "c6")
    assert away.problem and away.value.rounds == []
    with workspace.session() as session:
        session.execute(text("ALTER TABLE away RENAME TO interactions"))
    back = gateway.conversation("docstrings", "c6")
    assert back.problem is None and [turn.question for turn in back.value.rounds] == ["question 1"]
    assert gateway.conversation("docstrings", "c6").value is back.value


def test_what_was_asked_while_the_database_was_away_stays(monkeypatch):
    monkeypatch.setenv("SLUICE_GATEWAY", "http://127.0.0.1:9")
    conversation = Conversation("c7", [], unread=True)
    assert conversation.ask("one")
    conversation.fill([], unread=False)
    assert [turn.question for turn in conversation.rounds] == ["one"]


def test_a_round_that_both_sides_refused_leaves_its_number_behind(workspace, monkeypatch):
    monkeypatch.setenv("SLUICE_GATEWAY", "http://127.0.0.1:9")
    store(workspace, interaction("c8", 1, "base"), interaction("c8", 3, "base"))
    conversation = gateway.conversation("docstrings", "c8").value
    assert [turn.number for turn in conversation.rounds] == [1, 3]
    assert conversation.ask("the next")
    assert conversation.rounds[-1].number == 4


@pytest.fixture
def refusing(monkeypatch):
    """A service that asks for a key and knows none; the headers that reached it."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    sent = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            sent.append(self.headers.get("authorization"))
            body = b'{"error": {"message": "There is no such key."}}'
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SLUICE_GATEWAY", f"http://127.0.0.1:{server.server_port}")
    yield sent
    server.shutdown()
    server.server_close()


def test_the_panel_sends_the_key_of_its_environment_and_says_what_to_do_without_one(refusing, monkeypatch):
    from tests.waiting import until

    monkeypatch.setenv("SLUICE_API_KEY", "sluice_of_the_panel")
    conversation = Conversation("c9", [])
    assert conversation.ask("one")
    until(lambda: not conversation.writing, "the answers' end")
    monkeypatch.delenv("SLUICE_API_KEY")
    problem = gateway.give_feedback("r1", "thumb_up")
    assert refusing == ["Bearer sluice_of_the_panel"] * 2 + [None]
    for told in (problem, *(answer.problem for answer in conversation.rounds[0].answers.values())):
        assert "no such key" in told.message and "SLUICE_API_KEY" in told.remedy
