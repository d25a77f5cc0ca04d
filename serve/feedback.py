"""Feedback by request id, committed before the reply."""

import functools
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.workspace import Workspace
from serve.schemas import FeedbackRequest

if TYPE_CHECKING:
    from sqlalchemy import Select

REMEMBERED = 20_000


@functools.cache
def _asked() -> "Select[str]":
    """Selects the interaction whose id is the parameter `request_id`.

    Every request asks this: it is built once, and in no session, whose work is several times the database's.
    """
    from sqlalchemy import bindparam, select

    from pipelines.records import InteractionRow

    return select(InteractionRow.request_id).where(InteractionRow.request_id == bindparam("request_id"))


class FeedbackStore:
    """Knows which requests there were, and keeps what people say of them."""

    def __init__(self, workspace: Workspace, recipe_name: str, *, masked: bool = False) -> None:
        """`masked`: what people write is kept without personal data and secrets."""
        self._workspace, self._recipe_name, self._masked = workspace, recipe_name, masked
        self._recent: OrderedDict[str, str] = OrderedDict()
        """Request -> unit, of this process: their rows may still wait to be written."""

    def taken(self, request_id: str) -> bool:
        """Whether there is or was a request of that name, in this process or in the table."""
        if request_id in self._recent:
            return True
        with self._workspace.database.connect() as connection:
            return connection.scalar(_asked(), {"request_id": request_id}) is not None

    def remembers(self, request_id: str) -> bool:
        """Whether this process has answered it not long ago."""
        return request_id in self._recent

    def answer(self, request_id: str) -> str | None:
        """The answer to a request of this recipe, where it is written down and kept."""
        from sqlalchemy import select

        from pipelines.records import InteractionRow

        asked = InteractionRow
        query = select(asked.answer).where(asked.request_id == request_id, asked.recipe_name == self._recipe_name)
        with self._workspace.session() as session:
            return session.scalar(query)

    def answering(self, request_id: str, unit: str) -> bool:
        """Remember that there is such a request; False when this process remembers one of that name."""
        if request_id in self._recent:
            return False
        self._recent[request_id] = unit
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return True

    def refused(self, request_id: str) -> None:
        """Forget a request that was not taken on: its id is free again, and there is nothing to say of it."""
        self._recent.pop(request_id, None)

    def units(self, request_ids: Iterable[str]) -> dict[str, str]:
        """Request -> unit, of those requests that there were."""
        from sqlalchemy import select

        from pipelines.records import InteractionRow

        wanted = set(request_ids)
        found = {one: self._recent[one] for one in wanted if one in self._recent}
        if older := wanted - found.keys():
            query = select(InteractionRow.request_id, InteractionRow.unit).where(
                InteractionRow.recipe_name == self._recipe_name, InteractionRow.request_id.in_(sorted(older))
            )
            with self._workspace.session() as session:
                found |= {request_id: unit for request_id, unit in session.execute(query)}
        return found

    def add(self, feedback: FeedbackRequest) -> int | None:
        """The number of the stored row, or None when there was no such request."""
        from pipelines.records import FeedbackRow, InteractionRow

        if self._masked:
            from pipelines.data.privacy.private import mask_private

            written = {name: getattr(feedback, name) for name in ("reason", "correction")}
            feedback = feedback.model_copy(update={name: text and mask_private(text) for name, text in written.items()})
        edited = None if feedback.correction is None else self._edited(feedback.request_id, feedback.correction)
        with self._workspace.session() as session:
            if feedback.request_id not in self._recent:
                found = session.get(InteractionRow, feedback.request_id)
                if found is None or found.recipe_name != self._recipe_name:
                    return None
            row = FeedbackRow(**feedback.model_dump(), edited=edited)
            session.add(row)
            session.flush()
            return row.id

    def _edited(self, request_id: str, correction: str) -> float | None:
        """How much of the answer a correction changed, from 0 to 1; None where the answer is not kept."""
        from rapidfuzz.distance import Levenshtein

        answer = self.answer(request_id)
        return None if answer is None else Levenshtein.normalized_distance(answer, correction)
