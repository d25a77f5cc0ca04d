"""The deployment log: what is in production from when, by whom, on what evidence. Rows are only ever added."""

from typing import Any

from pipelines.records import DeploymentRow
from pipelines.workspace import Workspace

PROMOTE, ROLLBACK = "promote", "rollback"


def append(
    workspace: Workspace,
    *,
    recipe_name: str,
    action: str,
    model_name: str,
    model_version: str,
    content: dict[str, Any],
    by: str,
) -> DeploymentRow:
    """The new row, which is in production from now on."""
    row = DeploymentRow(
        recipe_name=recipe_name,
        action=action,
        model_name=model_name,
        model_version=model_version,
        content=content,
        by=by,
    )
    with workspace.session() as session:
        session.add(row)
    return row


def current(workspace: Workspace, recipe_name: str) -> DeploymentRow | None:
    """What is in production for a recipe, or None."""
    return next(iter(history(workspace, recipe_name, limit=1)), None)


def history(workspace: Workspace, recipe_name: str | None = None, *, limit: int = 1000) -> list[DeploymentRow]:
    """The rows of a recipe (or of all), newest first."""
    from sqlalchemy import select

    query = select(DeploymentRow).order_by(DeploymentRow.id.desc()).limit(limit)
    if recipe_name is not None:
        query = query.where(DeploymentRow.recipe_name == recipe_name)
    with workspace.session() as session:
        return list(session.scalars(query))
