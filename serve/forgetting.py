"""Texts that were kept long enough are forgotten: prompts, answers and what people wrote of them; figures stay."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from pipelines.workspace import Workspace

logger = logging.getLogger("sluice.serve")

EVERY_S = 3600.0
CLOSING_S = 5.0
BATCH = 500
"""Rows of one transaction: what a service writes beside it waits no longer than for these."""


def forget_texts(workspace: Workspace, recipe_name: str, days: int) -> Iterator[int]:
    """Take the texts of a recipe's interactions that are older than `days` out of the database, batch by batch.

    Yields how many they were, each time when they are gone.
    """
    from sqlalchemy import exists, null, select

    from pipelines.records import FeedbackRow, InteractionRow, now

    asked, said = InteractionRow, FeedbackRow
    before = now() - timedelta(days=days)
    answers = select(asked.request_id).where(
        asked.recipe_name == recipe_name, asked.created_at < before, asked.answer.is_not(None)
    )
    yield from _forget(workspace, answers, asked.request_id, {"messages": null(), "answer": null()})
    # By their own age: a person may write of an answer long after it was given. An interaction that was lost has left
    # no row to say whose it was: what was written of it goes too.
    of_another = exists().where(asked.request_id == said.request_id, asked.recipe_name != recipe_name)
    remarks = select(said.id).where(
        said.created_at < before, said.reason.is_not(None) | said.correction.is_not(None), ~of_another
    )
    yield from _forget(workspace, remarks, said.id, {"reason": null(), "correction": null()})


def _forget(workspace: Workspace, old: Any, key: Any, nothing: dict[str, Any]) -> Iterator[int]:
    """Set columns of the rows whose keys the query finds."""
    from sqlalchemy import update

    while True:
        with workspace.session() as session:
            keys = list(session.scalars(old.limit(BATCH)))
            if not keys:
                return
            session.execute(update(key.class_).where(key.in_(keys)).values(**nothing))
        yield len(keys)


class Forgetting:
    """Forgets at once and then every hour, in a thread, until it is closed."""

    def __init__(
        self,
        workspace: Workspace,
        recipe_name: str,
        days: int,
        forgotten: Callable[[int], None] = lambda count: None,
        every_s: float = EVERY_S,
    ) -> None:
        """`forgotten` is told how many texts went, batch by batch."""
        self._workspace, self._recipe_name, self._days = workspace, recipe_name, days
        self._forgotten, self._every_s = forgotten, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="forgetting", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the batch that is under way."""
        self._closing.set()
        self._thread.join(CLOSING_S)

    def _work(self) -> None:
        while True:
            try:
                for count in forget_texts(self._workspace, self._recipe_name, self._days):
                    self._forgotten(count)
                    if self._closing.is_set():
                        return
            except Exception as error:
                # The database is away: they are forgotten the next time.
                logger.warning("texts of %s could not be forgotten: %s", self._recipe_name, type(error).__name__)
            if self._closing.wait(self._every_s):
                return
