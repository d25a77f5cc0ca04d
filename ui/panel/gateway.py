"""Talking to the running service: two answers to each question, side by side, and what people say of them.

A conversation lives where a reload finds it: its id is in the address, its answers are in the interactions that
the service keeps; what is being written right now is held by this process, for every tab alike.
"""

import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.errors import UserError
from serve.client import Client
from serve.exposures import unit_of
from serve.schemas import FeedbackKind
from ui.panel import backend
from ui.panel.last_known import Known, Problem, problem_of

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
MAX_ROUNDS = 50
"""Questions in one conversation: a small model's context is full long before."""
KEPT = 200
"""Conversations that this process holds; older ones are read from the interactions."""
START = "Start it with `sluice serve RECIPE`, or set SLUICE_GATEWAY to where it runs."


@dataclass
class Answer:
    """What one side says, as far as it has come."""

    text: str = ""
    state: Literal["writing", "done", "failed"] = "writing"
    request_id: str | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    problem: Problem | None = None
    kept: bool = True
    """Whether the text is what was said; else it was never kept, or is forgotten."""


@dataclass
class Round:
    """A question and the answers to it; a side that was not reached has none."""

    number: int
    """From 1; a round that both sides refused leaves a gap after a reload."""
    question: str
    answers: dict[Side, Answer] = field(default_factory=dict)


@dataclass(frozen=True)
class Opinion:
    """What was last said of an answer."""

    thumb: Literal["thumb_up", "thumb_down"] | None = None
    flagged: str | None = None
    """The reason of the last flag."""


class Conversation:
    """Rounds of one conversation; asked from one thread, written by two, read by every tab."""

    def __init__(self, chat_id: str, rounds: list[Round], *, unread: bool = False) -> None:
        self.chat_id = chat_id
        self.rounds = rounds
        self.unread = unread
        """Whether the database was away, and may know more of it; what is asked here is kept all the same."""
        self._asking = threading.Lock()

    @property
    def writing(self) -> bool:
        """Whether an answer is on its way."""
        last = self.rounds[-1].answers.values() if self.rounds else ()
        return any(answer.state == "writing" for answer in last)

    def ask(self, question: str) -> bool:
        """Send the question to both sides; False when answers are still on their way, or the end is reached."""
        with self._asking:
            number = max((past.number for past in self.rounds), default=0) + 1
            if self.writing or number > MAX_ROUNDS:
                return False
            self.unread = False
            messages = {side: self._messages(side, question) for side in SIDES}
            asked = Round(number, question, {side: Answer() for side in SIDES})
            self.rounds.append(asked)
        user = user_of(self.chat_id, number)
        for side in SIDES:
            arguments = (asked.answers[side], side, messages[side], user)
            threading.Thread(target=_write, args=arguments, daemon=True).start()
        return True

    def fill(self, rounds: list[Round], *, unread: bool) -> None:
        """Take over what was read, unless something was asked meanwhile."""
        with self._asking:
            if self.unread:
                self.rounds, self.unread = rounds, unread

    def _messages(self, side: Side, question: str) -> list[dict[str, str]]:
        """The conversation as this side knows it: the rounds that it answered, and the new question."""
        messages: list[dict[str, str]] = []
        for past in self.rounds:
            answer = past.answers.get(side)
            if answer and answer.state == "done" and answer.kept:
                messages.append({"role": "user", "content": past.question})
                messages.append({"role": "assistant", "content": answer.text})
        return [*messages, {"role": "user", "content": question}]


def address() -> str:
    """Where the service is."""
    return os.environ.get("SLUICE_GATEWAY") or "http://127.0.0.1:8000"


def health() -> Known[dict[str, Any]]:
    """What the service says of itself: the recipe that it hosts, and how much there is to do."""

    def read() -> dict[str, Any]:
        with Client(address(), timeout_s=5) as client:
            return client.health()

    return backend.known.read(("service", address()), f"The service at {address()}", START, read)


def service() -> Known[str]:
    """Name of the recipe that the service hosts, once it can answer."""
    found = health()
    return Known(str(found.value["recipe"]) if found.value else None, found.read_at, found.problem)


def _write(answer: Answer, side: Side, messages: list[dict[str, str]], user: str) -> None:
    """Let one side answer, piece by piece."""
    try:
        with Client(address()) as client, client.stream(messages, user=user, model=side) as stream:
            answer.request_id = stream.request_id
            for piece in stream:
                answer.text += piece
            answer.finish_reason = stream.finish_reason
            answer.tokens = stream.usage.completion_tokens if stream.usage else None
        answer.state = "done"
    except Exception as error:
        # Whatever went wrong on the way is this answer's end, and the page says so.
        answer.problem = problem_of(error, f"The service at {address()}", START)
        answer.state = "failed"


_conversations: OrderedDict[tuple[str, str], Conversation] = OrderedDict()
_lock = threading.Lock()


def new_chat_id() -> str:
    """An id that nobody guesses: whoever has the address can read the conversation."""
    return secrets.token_hex(12)


def user_of(chat_id: str, number: int) -> str:
    """The user that a round goes by: the interactions of round `number` are found again by it."""
    return f"panel:{chat_id}:{number}"


def conversation(recipe_name: str, chat_id: str) -> Known[Conversation]:
    """The conversation of this id: the one this process holds, else what the interactions tell, else a new one."""
    with _lock:
        held = _conversations.get((recipe_name, chat_id))
        if held:
            _conversations.move_to_end((recipe_name, chat_id))
        if held and not held.unread:
            return Known(held, None)
    found = backend.from_database(("conversation", recipe_name, chat_id), lambda: _rounds(recipe_name, chat_id))
    with _lock:
        kept = _conversations.setdefault((recipe_name, chat_id), Conversation(chat_id, [], unread=True))
        kept.fill(found.value or [], unread=found.problem is not None)
        while len(_conversations) > KEPT:
            _conversations.popitem(last=False)
    return Known(kept, found.read_at, found.problem)


def _rounds(recipe_name: str, chat_id: str) -> list[Round]:
    from sqlalchemy import select

    from pipelines.records import InteractionRow

    numbers = {unit_of(user_of(chat_id, number)): number for number in range(1, MAX_ROUNDS + 1)}
    query = select(InteractionRow).where(InteractionRow.recipe_name == recipe_name, InteractionRow.unit.in_(numbers))
    rounds: dict[int, Round] = {}
    with backend.workspace().session() as session:
        for row in session.scalars(query.order_by(InteractionRow.created_at)):
            if row.arm in SIDES:
                found = rounds.setdefault(numbers[row.unit], Round(numbers[row.unit], _question(row.messages)))
                found.answers[row.arm] = _answer(row)
    return [rounds[number] for number in sorted(rounds)]


def _question(messages: dict[str, Any] | None) -> str:
    """The last message: what was asked."""
    return str(messages["messages"][-1]["content"]) if messages else "(this question is not kept)"


def _answer(row: Any) -> Answer:
    text = row.answer if row.answer is not None else "(this answer is not kept)"
    problem = (
        None if row.status == 200 else Problem(f"The answer was not finished (status {row.status}).", "Ask again.")
    )
    return Answer(
        text,
        "done" if problem is None else "failed",
        row.request_id,
        row.completion_tokens,
        row.finish_reason,
        problem,
        kept=row.answer is not None,
    )


def opinions(request_ids: list[str]) -> Known[dict[str, Opinion]]:
    """What was last said of these answers."""

    def read() -> dict[str, Opinion]:
        from sqlalchemy import select

        from pipelines.records import FeedbackRow

        said: dict[str, Opinion] = {}
        query = select(FeedbackRow).where(FeedbackRow.request_id.in_(request_ids)).order_by(FeedbackRow.id)
        with backend.workspace().session() as session:
            for row in session.scalars(query):
                before = said.get(row.request_id, Opinion())
                if row.kind in ("thumb_up", "thumb_down"):
                    said[row.request_id] = Opinion(
                        "thumb_up" if row.kind == "thumb_up" else "thumb_down", before.flagged
                    )
                elif row.kind == "flag":
                    said[row.request_id] = Opinion(before.thumb, row.reason or "no reason is kept")
        return said

    return backend.from_database(("opinions", tuple(request_ids)), read)


def give_feedback(request_id: str, kind: FeedbackKind, reason: str | None = None) -> Problem | None:
    """Send what a person says of an answer; None when the service has stored it."""
    try:
        with Client(address(), timeout_s=10) as client:
            client.feedback(request_id, kind, reason)
    except UserError as error:
        return problem_of(error, f"The service at {address()}", START)
    return None
