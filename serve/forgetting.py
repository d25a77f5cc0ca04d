"""Texts that were kept long enough are forgotten: prompts, answers and what people wrote of them; figures stay."""

import logging
import threading
from datetime import timedelta
from typing import Any

from pipelines.workspace import Workspace

logger = logging.getLogger("sluice.serve")

EVERY_S = 3600.0
BATCH = 500
"""Rows of one transaction: what a service writes beside it waits no longer than for these."""


def forget_texts(workspace: Workspace, recipe_name: str, days: int) -> int:
    """Take the texts of a recipe's interactions that are older than `days` out of the database; how many they were."""
    from sqlalchemy import null, select

    from pipelines.records import FeedbackRow, InteractionRow, now

    asked, said = InteractionRow, FeedbackRow
    before = now() - timedelta(days=days)
    of_recipe = select(asked.request_id).where(asked.recipe_name == recipe_name)
    answers = of_recipe.where(asked.created_at < before, asked.answer.is_not(None))
    # By their own age: a person may write of an answer long after it was given.
    remarks = select(said.id).where(
        said.request_id.in_(of_recipe),
        said.created_at < before,
        said.reason.is_not(None) | said.correction.is_not(None),
    )
    return _forget(workspace, answers, asked.request_id, {"messages": null(), "answer": null()}) + _forget(
        workspace, remarks, said.id, {"reason": null(), "correction": null()}
    )


def _forget(workspace: Workspace, old: Any, key: Any, nothing: dict[str, Any]) -> int:
    """Set columns of the rows whose keys the query finds; how many they were."""
    from sqlalchemy import update

    count = 0
    while True:
        with workspace.session() as session:
            keys = list(session.scalars(old.limit(BATCH)))
            if not keys:
                return count
            session.execute(update(key.class_).where(key.in_(keys)).values(**nothing))
        count += len(keys)


class Forgetting:
    """Forgets at once and then every hour, in a thread, until it is closed."""

    def __init__(self, workspace: Workspace, recipe_name: str, days: int, every_s: float = EVERY_S) -> None:
        self._workspace, self._recipe_name, self._days, self._every_s = workspace, recipe_name, days, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="forgetting", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what a transaction holds is forgotten to its end."""
        self._closing.set()

    def _work(self) -> None:
        while True:
            try:
                if count := forget_texts(self._workspace, self._recipe_name, self._days):
                    logger.info("%s: %d texts are forgotten, %d days old", self._recipe_name, count, self._days)
            except Exception as error:
                # The database is away: they are forgotten the next time.
                logger.warning("texts of %s could not be forgotten: %s", self._recipe_name, type(error).__name__)
            if self._closing.wait(self._every_s):
                return
