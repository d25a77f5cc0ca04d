"""Try it: base and tuned answer the same question side by side, and people say what they think of it.

Blind, each question is a conversation of its own: who has seen the names of one answer knows those of the next.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from serve.schemas import FeedbackKind
from ui.panel import blind, frame, gateway
from ui.panel.gateway import SIDES, Answer, Conversation, Opinion, Round, Side
from ui.panel.last_known import Known, Problem
from ui.panel.markup import html

WRITING_S = 0.3
WAITING_S = 5
REFUSED = "refused-question"
"""Where a question waits that could not be asked."""
UNSAID = "unsaid"
"""With the id of an answer or a conversation: where it waits why what was last said of it is not kept."""


def try_it() -> None:
    """The page."""
    hosted = gateway.service()
    recipe_name, chat_id = hosted.value or frame.in_address("recipe"), frame.in_address("chat")
    conversation = gateway.conversation(recipe_name, chat_id).value if recipe_name and chat_id else None
    writing = conversation is not None and conversation.writing
    _head(hosted, conversation, writing)
    if recipe_name is None:
        return
    st.fragment(_rounds, run_every=WRITING_S if writing else None)(recipe_name, chat_id, writing)
    if refused := st.session_state.pop(REFUSED, None):
        st.session_state["question"] = refused
        frame.say(
            html("This conversation is at its end, or still being answered: begin a new one, or wait."), "warning"
        )
    # One key for every conversation: what is sent while another input takes this one's place would be nobody's.
    question = st.chat_input(
        "Ask both", max_chars=20_000, disabled=writing or hosted.problem is not None, key="question"
    )
    if question and question.strip():
        _ask(recipe_name, chat_id, question)


def _ask(recipe_name: str, chat_id: str | None, question: str) -> None:
    if _is_blind():
        chat_id = blind.new_chat_id()
    chat_id = chat_id or gateway.new_chat_id()
    conversation = gateway.conversation(recipe_name, chat_id).value
    if conversation is not None and not conversation.ask(question):
        # The input is empty by now: the next run gives back what was typed.
        st.session_state[REFUSED] = question
        st.rerun()
    st.query_params["chat"] = chat_id
    st.rerun()


@st.fragment(run_every=WAITING_S)
def _head(hosted: Known[str], conversation: Conversation | None, writing: bool) -> None:
    """What is hosted; while the service is away, the command that starts it."""
    present = gateway.service()
    # An answer that ended is drawn at the rounds' own pace; should a browser lose that, here at the latest.
    ended = conversation is not None and conversation.writing != writing
    if ended or (present.problem is None) != (hosted.problem is None):
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        if present.problem is None:
            st.html(
                html(
                    '<div class="line"><b>{recipe}</b><span class="verdict open">in service</span>'
                    '<span class="mono quiet">{address}</span></div>',
                    recipe=present.value,
                    address=gateway.address(),
                )
            )
        else:
            frame.notice(Known(present.value, present.read_at, present.problem))
        recipe, is_blind = frame.in_address("recipe"), _is_blind()
        if frame.in_address("chat") and not is_blind:
            frame.go("New conversation", "to-new", recipe=recipe)
        if is_blind:
            frame.go("With names", "to-named", recipe=recipe)
        else:
            frame.go("Compare blind", "to-blind", recipe=recipe, blind="1")
    chosen = frame.in_address("recipe")
    if present.problem is None and chosen and chosen != present.value:
        frame.say(html("The service hosts {hosted}, not {chosen}.", hosted=present.value, chosen=chosen), "warning")
    if _is_blind() and present.value:
        _tally(present.value)


def _is_blind() -> bool:
    """Of a conversation its id decides, before its first question the address."""
    chat_id = frame.in_address("chat")
    return blind.is_blind(chat_id) or (chat_id is None and frame.in_address("blind") is not None)


def _tally(recipe_name: str) -> None:
    said = blind.tally(recipe_name)
    frame.notice(said)
    if said.value and said.value != blind.Tally():
        st.html(html('<div class="line" id="tally">Blind so far: {sentence}</div>', sentence=said.value.sentence))


def _rounds(recipe_name: str, chat_id: str | None, writing: bool) -> None:
    found = gateway.conversation(recipe_name, chat_id) if chat_id else None
    conversation = found.value if found else None
    if found:
        frame.notice(found)
    if conversation is None or not conversation.rounds:
        if _is_blind():
            st.html(
                '<div class="empty"><h1>Which answer is better?</h1><p>Both models answer what you ask, in an order as '
                "good as drawn. Say which answer is better; only then are you told who gave it.</p></div>"
            )
            return
        st.html(
            '<div class="empty"><h1>The same question to both</h1><p>What you ask goes to the base model and to the '
            "tuned one at the same time. Say which answer helps, or flag one with your reason: it is kept with the "
            "request, and retraining learns from it.</p></div>"
        )
        return
    if writing != conversation.writing:
        # The last piece has come (or the first is on its way): the page follows at the other pace.
        st.rerun()
    _conversation(conversation)


def _conversation(conversation: Conversation) -> None:
    ids = [a.request_id for r in conversation.rounds for a in r.answers.values() if a.request_id]
    said = gateway.opinions(ids)
    if _is_blind():
        _blind_round(conversation, said.value or {})
    else:
        for number, turn in enumerate(conversation.rounds, 1):
            _round(number, turn, said.value or {})
    frame.notice(said)


def _blind_round(conversation: Conversation, said: dict[str, Opinion]) -> None:
    """The first question of a conversation, its answers nameless until one of them was chosen."""
    turn = conversation.rounds[0]
    answers = turn.answers
    judgement = blind.judgement(answers)
    frame.notice(judgement)
    if judgement.value is not None:
        words = "Equally good" if judgement.value == "tied" else f"Preferred: {judgement.value}"
        frame.say(html("{words}. Ask again below.", words=words))
        _round(1, turn, said, blind.order(conversation.chat_id))
        return
    st.html(html('<div class="turn user"><span class="who">you</span>{text}</div>', text=turn.question))
    order = dict(zip("AB", blind.order(conversation.chat_id), strict=True))
    for column, (letter, side) in zip(st.columns(len(order), gap="medium"), order.items(), strict=True):
        with column, st.container(key=f"answer-1-{letter}", gap="xsmall"):
            # Who begins first, or is faster, would tell.
            _answer(letter, Answer() if conversation.writing else answers.get(side) or Answer(state="failed"))
    if conversation.writing:
        return
    if len(answers) < len(order) or not all(one.state == "done" and one.kept for one in answers.values()):
        frame.say(html("One answer is missing: there is nothing to choose between. Ask again below."), "warning")
    elif judgement.problem is None:
        _choice(conversation.chat_id, answers, order)


def _choice(chat_id: str, answers: dict[Side, Answer], order: dict[str, Side]) -> None:
    choices: list[tuple[str, blind.Judgement]] = [(f"{letter} is better", side) for letter, side in order.items()]
    choices.insert(1, ("Equally good", "tied"))
    with st.container(horizontal=True, gap="small", horizontal_alignment="center", key="choice"):
        for place, (label, chosen) in enumerate(choices):
            # The key goes into the page: it must not tell.
            _said_by_button(label, f"{chat_id}-choice-{place}", chat_id, partial(blind.judge, answers, chosen))
    _unsaid(chat_id)


def _round(number: int, turn: Round, said: dict[str, Opinion], order: tuple[Side, ...] = SIDES) -> None:
    with st.container(key=f"round-{number}", gap="small"):
        st.html(html('<div class="turn user"><span class="who">you</span>{text}</div>', text=turn.question))
        for column, side in zip(st.columns(len(order), gap="medium"), order, strict=True):
            with column, st.container(key=f"answer-{number}-{side}", gap="xsmall"):
                answer = turn.answers.get(side)
                if answer is None:
                    st.html(html('<span class="quiet">{side} was not reached.</span>', side=side))
                    continue
                _answer(side, answer)
                if answer.request_id and answer.state == "done":
                    _feedback(answer.request_id, said.get(answer.request_id, Opinion()))


def _answer(who: str, answer: Answer) -> None:
    note = {"writing": "writing", "failed": "broke off"}.get(answer.state) or (
        f"{answer.tokens} tokens" + (", cut at the limit" if answer.finish_reason == "length" else "")
    )
    st.html(
        html(
            '<div class="turn"><span class="who">{who}, {note}</span>{text}</div>',
            who=who,
            note=html('<span class="verdict running">{n}</span>', n=note) if answer.state == "writing" else note,
            text=answer.text,
        )
    )
    if answer.problem:
        frame.notice(Known(None, None, answer.problem))


def _feedback(request_id: str, said: Opinion) -> None:
    def give(kind: FeedbackKind) -> Problem | None:
        reason = str(st.session_state[reason_key]).strip() if kind == "flag" else None
        return gateway.give_feedback(request_id, kind, reason)

    reason_key = f"{request_id}-reason"
    thumbs: tuple[tuple[FeedbackKind, str], ...] = (("thumb_up", "Helps"), ("thumb_down", "Does not help"))
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        for kind, label in thumbs:
            chosen = said.thumb == kind
            _said_by_button(
                label,
                f"{request_id}-{kind}",
                request_id,
                partial(give, kind),
                icon=f":material/{kind}:",
                type="primary" if chosen else "tertiary",
                disabled=chosen,
            )
        with st.popover("Flagged" if said.flagged else "Flag", icon=":material/flag:", type="tertiary"):
            if said.flagged:
                st.html(html('<div class="break">{reason}</div>', reason=said.flagged))
            reason = st.text_area("What is wrong with it?", max_chars=4000, key=reason_key)
            _said_by_button(
                "Flag this answer",
                f"{request_id}-flag",
                request_id,
                partial(give, "flag"),
                disabled=not reason.strip(),
            )
    _unsaid(request_id)


def _said_by_button(label: str, key: str, of: str, say: Callable[[], Problem | None], **options: Any) -> None:
    """A button that says something of `of`.

    It does so in a callback, which comes first: a click in the moment in which the last answer ends has the page drawn
    anew at the other pace, before the run comes to the button.
    """

    def clicked() -> None:
        key = f"{UNSAID}-{of}"
        if problem := say():
            st.session_state[key] = problem
        else:
            st.session_state.pop(key, None)

    st.button(label, key=key, on_click=clicked, **options)


def _unsaid(of: str) -> None:
    """Why what was last said of `of` is not kept; what is kept is read back from the table."""
    frame.notice(Known(None, None, st.session_state.get(f"{UNSAID}-{of}")))


try_it()
