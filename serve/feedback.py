"""Feedback by request id, committed before the reply."""

from collections import OrderedDict

from pipelines.workspace import Workspace
from serve.schemas import FeedbackRequest

REMEMBERED = 20_000


class FeedbackStore:
    """Knows which requests there were, and keeps what people say of them."""

    def __init__(self, workspace: Workspace, recipe_name: str) -> None:
        self._workspace, self._recipe_name = workspace, recipe_name
        self._recent: OrderedDict[str, None] = OrderedDict()
        """Requests of this process: their rows may still wait to be written."""

    def taken(self, request_id: str) -> bool:
        """Whether there is or was a request of that name, in this process or in the table."""
        from pipelines.records import InteractionRow

        if request_id in self._recent:
            return True
        with self._workspace.session() as session:
            return session.get(InteractionRow, request_id) is not None

    def answering(self, request_id: str) -> bool:
        """Remember that there is such a request; False when this process remembers one of that name."""
        if request_id in self._recent:
            return False
        self._recent[request_id] = None
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return True

    def refused(self, request_id: str) -> None:
        """Forget a request that was not taken on: its id is free again, and there is nothing to say of it."""
        self._recent.pop(request_id, None)

    def add(self, feedback: FeedbackRequest) -> int | None:
        """The number of the stored row, or None when there was no such request."""
        from pipelines.records import FeedbackRow, InteractionRow

        with self._workspace.session() as session:
            if feedback.request_id not in self._recent:
                found = session.get(InteractionRow, feedback.request_id)
                if found is None or found.recipe_name != self._recipe_name:
                    return None
            row = FeedbackRow(**feedback.model_dump())
            session.add(row)
            session.flush()
            return row.id
