import pytest

from pipelines.records import FeedbackRow, InteractionRow
from serve.exposures import unit_of
from tests.ui.panel import seed
from tests.ui.panel.browser import POLL_MS, serving, settled
from tests.waiting import until
from ui.panel.gateway import MAX_ROUNDS, user_of

pytestmark = pytest.mark.browser


@pytest.fixture
def panel(workspace, service, tmp_path):
    """A panel with the service in reach."""
    with serving(tmp_path / "panel.log", SLUICE_GATEWAY=service) as address:
        yield address


def rows(workspace, table):
    from sqlalchemy import select

    with workspace.session() as session:
        return list(session.scalars(select(table)))


def keep(workspace, chat, number, question, texts):
    """What the service would have kept of a question and its answers; `texts` by side."""
    with workspace.session() as session:
        for side, text in texts.items():
            session.add(
                InteractionRow(
                    request_id=f"r-{side}",
                    recipe_name="docstrings",
                    unit=unit_of(user_of(chat, number)),
                    arm=side,
                    model=side,
                    messages={"messages": [{"role": "user", "content": question}]},
                    answer=text,
                    finish_reason="stop",
                    prompt_tokens=1,
                    completion_tokens=9,
                    first_token_ms=1.0,
                    total_ms=2.0,
                    status=200,
                )
            )


def ask(page, question):
    page.wait_for_selector("[data-testid=stChatInput] textarea:enabled")
    page.fill("[data-testid=stChatInput] textarea", question)
    page.keyboard.press("Enter")


def answers(page):
    return page.locator('[class*="st-key-answer-"] .turn')


def answered(page, count):
    page.wait_for_function(
        "n => document.querySelectorAll('[class*=st-key-answer-] .turn').length === n"
        " && !document.querySelector('[class*=st-key-answer-] .running')",
        arg=count,
        polling=POLL_MS,
    )


def test_both_answer_side_by_side_and_a_reload_keeps_the_conversation(workspace, panel, page):
    page.goto(f"{panel}/try?recipe=docstrings")
    page.wait_for_selector("text=in service")
    ask(page, "What does open return?")
    page.wait_for_url("**chat=*")
    answered(page, 2)
    first = answers(page).all_text_contents()
    assert first[0].startswith("base") and first[1].startswith("tuned")
    assert "24 tokens, cut at the limit" in first[0]
    # At once, while the page is still being drawn anew: it must not be lost.
    ask(page, "And close?")
    answered(page, 4)
    page.reload()
    answered(page, 4)
    assert answers(page).all_text_contents()[:2] == first
    kept = until(
        lambda: [r for r in rows(workspace, InteractionRow)][3:] and rows(workspace, InteractionRow), "the log"
    )
    assert sorted(row.arm for row in kept) == ["base", "base", "tuned", "tuned"]
    # The second question went out with the first one's answer before it.
    assert {len(row.messages["messages"]) for row in kept} == {1, 3}


def test_a_question_that_cannot_be_asked_is_given_back(workspace, panel, page):
    keep(workspace, "feedbeef", MAX_ROUNDS, "The last one?", {"base": "yes", "tuned": "no"})
    page.goto(f"{panel}/try?recipe=docstrings&chat=feedbeef")
    answered(page, 2)
    ask(page, "One more?")
    page.wait_for_selector(".notice.warning:has-text('at its end')")
    until(lambda: page.input_value("[data-testid=stChatInput] textarea") == "One more?", "the question again")
    assert len(rows(workspace, InteractionRow)) == 2


def test_a_conversation_is_found_again_by_another_panel(workspace, service, panel, page, tmp_path):
    page.goto(f"{panel}/try?recipe=docstrings")
    ask(page, "What does open return?")
    answered(page, 2)
    first, query = answers(page).all_text_contents(), page.url.partition("?")[2]
    until(lambda: len(rows(workspace, InteractionRow)) == 2, "the log")
    with serving(tmp_path / "other.log", SLUICE_GATEWAY=service) as other:
        page.goto(f"{other}/try?{query}")
        answered(page, 2)
        assert answers(page).all_text_contents() == first
        assert "What does open return?" in page.inner_text(".turn.user")


def test_feedback_reaches_the_table_and_is_shown_after_a_reload(workspace, panel, page):
    page.goto(f"{panel}/try?recipe=docstrings")
    ask(page, "What does open return?")
    answered(page, 2)
    page.get_by_role("button", name="Does not help").first.click()
    said = until(lambda: rows(workspace, FeedbackRow), "the feedback")
    assert said[0].kind == "thumb_down"
    page.get_by_role("button", name="Flag", exact=False).nth(1).click()
    page.fill("textarea[maxlength='4000'], [data-testid=stTextArea] textarea", "Invents a name.")
    page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="Flag this answer").click()
    until(lambda: len(rows(workspace, FeedbackRow)) == 2, "the flag")
    assert rows(workspace, FeedbackRow)[1].reason == "Invents a name."
    page.reload()
    page.wait_for_selector("button:has-text('Flagged')")
    assert page.get_by_role("button", name="Does not help").first.is_disabled()


def test_blind_the_names_come_after_the_judgement_and_each_question_begins_anew(workspace, panel, page):
    page.goto(f"{panel}/try?recipe=docstrings")
    page.get_by_role("button", name="Compare blind").click()
    page.wait_for_url("**blind=1*")
    ask(page, "What does open return?")
    page.wait_for_url("**chat=*")
    answered(page, 2)
    page.wait_for_selector("text=Equally good")
    settled(page)
    assert [text.split(",")[0] for text in answers(page).all_inner_texts()] == ["A", "B"]
    round_ = page.locator("[class*=st-key-answer-], .st-key-choice").evaluate_all("all => all.map(e => e.outerHTML)")
    assert not [text for text in round_ if "base" in text or "tuned" in text], "the page tells whose answer it is"
    assert page.get_by_role("button", name="Helps").count() == 0
    # Whatever of the address is taken away: the conversation stays what it is.
    page.goto(page.url.replace("blind=1", ""))
    page.wait_for_selector("text=Equally good")
    settled(page)
    assert [text.split(",")[0] for text in answers(page).all_inner_texts()] == ["A", "B"]

    page.get_by_role("button", name="B is better").click()
    page.wait_for_selector("text=Preferred: ")
    settled(page)
    answered(page, 2)
    (said,) = rows(workspace, FeedbackRow)
    shown = [text.split(",")[0] for text in answers(page).all_inner_texts()]
    assert said.kind == "preferred" and sorted(shown) == ["base", "tuned"]
    page.wait_for_selector(f"text=Preferred: {shown[1]}")
    until(lambda: len(rows(workspace, InteractionRow)) == 2, "the log")
    page.reload()
    page.wait_for_selector(f"text=Preferred: {shown[1]}")
    page.wait_for_selector("#tally >> text=of 1")

    first = page.url
    ask(page, "And close?")
    page.wait_for_function("first => location.href !== first", arg=first, polling=POLL_MS)
    page.wait_for_selector("text=A is better")
    assert "What does open return?" not in page.inner_text("body")


def test_what_models_and_people_write_is_inert(workspace, panel, page):
    chat = "feedbeef"
    texts = {"base": seed.HOSTILE, "tuned": seed.MARKDOWN_BEACON + seed.ANSI}
    keep(workspace, chat, 1, seed.HOSTILE, texts)
    page.goto(f"{panel}/try?recipe=docstrings&chat={chat}")
    answered(page, 2)
    settled(page)
    assert seed.HOSTILE in page.inner_text(".turn.user")
    assert seed.HOSTILE in answers(page).nth(0).inner_text()
    assert seed.MARKDOWN_BEACON in answers(page).nth(1).inner_text()
    assert r"\x1b[31mred" in answers(page).nth(1).inner_text()
    assert page.locator(".turn img, .turn a, .turn script").count() == 0
    assert page.evaluate("window.broken") is None
    assert not [url for url in page.asked if ":9/" in url]


def test_a_service_that_is_away_names_the_command_that_starts_it(workspace, tmp_path, page):
    workspace.save_report(seed.audit_report())
    with serving(tmp_path / "panel.log", SLUICE_GATEWAY="http://127.0.0.1:9") as address:
        page.goto(f"{address}/try?recipe=docstrings")
        page.wait_for_selector("text=sluice serve RECIPE")
        settled(page)
        assert page.locator("[data-testid=stChatInput] textarea").is_disabled()
        assert page.locator(".stException").count() == 0
