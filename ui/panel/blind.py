"""Blind comparison: one question to both, a person says which answer is better, and only then who gave which.

What is said is feedback of the request that was preferred (or, of equals, of the base's), so that it stands beside the
answers and outlives the page. A conversation is blind from its first question on, or never: its id says so.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from pipelines.evaluation.preference import share_interval
from ui.panel import backend, gateway
from ui.panel.gateway import SIDES, Answer, Side
from ui.panel.last_known import Known, Problem

PREFIX = "blind-"

Judgement = Literal["base", "tuned", "tied"]


@dataclass(frozen=True)
class Tally:
    """What people said of a recipe's model in blind comparisons: the first word of each user, here of each question."""

    base: int = 0
    tuned: int = 0
    tied: int = 0

    @property
    def sentence(self) -> str:
        """How often the tuned one was preferred, with an interval of 95 % that holds however often one looks."""
        decided = self.base + self.tuned
        if not decided:
            return f"{self.tied} equally good, none preferred"
        low, high = share_interval(self.tuned, decided)
        equals = f"; {self.tied} equally good" if self.tied else ""
        return f"tuned preferred in {self.tuned} of {decided} ({low:.0%} to {high:.0%}){equals}"


def new_chat_id() -> str:
    """An id of a blind conversation that nobody guesses."""
    return PREFIX + gateway.new_chat_id()


def is_blind(chat_id: str | None) -> bool:
    """Whether the names of its answers wait for the judgement."""
    return chat_id is not None and chat_id.startswith(PREFIX)


def order(chat_id: str) -> tuple[Side, ...]:
    """Which side stands first: as good as drawn, and the same after a reload."""
    first, second = SIDES
    return (first, second) if sha256(f"blind:{chat_id}".encode()).digest()[0] % 2 else (second, first)


def judge(answers: dict[Side, Answer], chosen: Judgement) -> Problem | None:
    """Keep what a person says of two whole answers; None when the service has stored it, or something was said before.

    A second click, or one in another tab, comes from someone who may have seen the names.
    """
    said = judgement(answers)
    if said.problem or said.value is not None:
        return said.problem
    side: Side = "base" if chosen == "tied" else chosen
    request_id = answers[side].request_id
    assert request_id is not None, "only answers that are whole are judged"
    return gateway.give_feedback(request_id, "tied" if chosen == "tied" else "preferred")


def judgement(answers: dict[Side, Answer]) -> Known[Judgement | None]:
    """What was first said of these answers: who knows the names is no longer blind."""
    sides = {answer.request_id: side for side, answer in answers.items() if answer.request_id}

    def read() -> Judgement | None:
        from sqlalchemy import select

        from pipelines.records import FeedbackRow

        said = FeedbackRow
        query = select(said.request_id, said.kind).where(
            said.request_id.in_(list(sides)), said.kind.in_(("preferred", "tied"))
        )
        with backend.workspace().session() as session:
            first = session.execute(query.order_by(said.id).limit(1)).first()
        return None if first is None else "tied" if first.kind == "tied" else sides[first.request_id]

    return backend.from_database(("judgement", tuple(sides)), read)


def tally(recipe_name: str) -> Known[Tally]:
    """What was said of the version in production."""

    def read() -> Tally:
        from sqlalchemy import select

        from pipelines.records import FeedbackRow, InteractionRow
        from pipelines.tracking import deployments

        deployment = deployments.current(backend.workspace(), recipe_name)
        version = deployment.model_version if deployment else None
        said, asked = FeedbackRow, InteractionRow
        query = (
            select(asked.unit, asked.arm, said.kind)
            .join(asked, asked.request_id == said.request_id)
            .where(
                asked.recipe_name == recipe_name,
                asked.model_version == version,
                said.kind.in_(("preferred", "tied")),
            )
            .order_by(said.id)
        )
        first: dict[str, str] = {}
        with backend.workspace().session() as session:
            for unit, arm, kind in session.execute(query):
                first.setdefault(unit, "tied" if kind == "tied" else arm)
        counts = [sum(one == what for one in first.values()) for what in ("base", "tuned", "tied")]
        return Tally(*counts)

    return backend.from_database(("blind", recipe_name), read)
