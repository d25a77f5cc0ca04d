"""The deployment log: what is in production from when, by whom, on what evidence. Rows are only ever added."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.records import DeploymentRow
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

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


def switch_traffic(
    session: "Session", recipe_name: str, traffic: Mapping[str, float], *, action: str, note: dict[str, Any], by: str
) -> DeploymentRow:
    """The new row that sends `traffic` (arm -> weight) to the models in production, in the caller's transaction.

    `note` says on what evidence. A later promotion of another version ends it.
    """
    before = newest(session, recipe_name)
    content = {name: value for name, value in before.content.items() if name != "rollback"}
    content |= {"traffic": dict(traffic), "experiment": note}
    if action == ROLLBACK:
        content["rollback"] = {"restores": origin(before), "replaces": before.id, "because": note["because"]}
    row = DeploymentRow(
        recipe_name=recipe_name,
        action=action,
        model_name=before.model_name,
        model_version=before.model_version,
        content=content,
        by=by,
    )
    session.add(row)
    return row


def newest(session: "Session", recipe_name: str) -> DeploymentRow:
    """What is in production for a recipe that was deployed, in the caller's transaction."""
    from sqlalchemy import select

    rows = select(DeploymentRow).where(DeploymentRow.recipe_name == recipe_name).order_by(DeploymentRow.id.desc())
    return session.scalars(rows.limit(1)).one()


def origin(row: DeploymentRow) -> int:
    """The promotion whose content a row holds: a rollback's row points to an earlier one."""
    note = row.content.get("rollback")
    return int(note["restores"]) if note else row.id


def traffic_of(row: DeploymentRow) -> dict[str, float] | None:
    """Arm -> weight where an experiment has decided, else None: the recipe's weights."""
    found = row.content.get("traffic")
    return None if found is None else {str(arm): float(weight) for arm, weight in found.items()}


def champion_of(row: DeploymentRow) -> str | None:
    """The registered version that the alias `champion` names while `row` is in force; None: the base serves all."""
    traffic = traffic_of(row)
    return None if traffic is not None and not traffic.get("tuned") else row.model_version


def follow_alias(workspace: Workspace, recipe_name: str) -> None:
    """Let the registry's alias `champion` name what the log says: the log is the switch, the alias comes after it.

    Raises UserError, with what is in force all the same, when the registry refuses.
    """
    from cluster.errors import UserError
    from pipelines.tracking import registry

    row = current(workspace, recipe_name)
    if row is None:
        return
    wanted = champion_of(row)
    try:
        if registry.champion(workspace.settings, row.model_name) != wanted:
            registry.set_champion(workspace.settings, row.model_name, wanted)
    except UserError as error:
        told = f"Deployment {row.id} of {recipe_name} is in force, but the alias in the registry could not follow"
        raise UserError(f"{told}: {error.message}", error.remedy) from error


def current(workspace: Workspace, recipe_name: str, version: str | None = None) -> DeploymentRow | None:
    """What is in production for a recipe, or None; with a version, the newest row that put that one there."""
    return next(iter(history(workspace, recipe_name, version, limit=1)), None)


def history(
    workspace: Workspace, recipe_name: str | None = None, version: str | None = None, *, limit: int = 1000
) -> list[DeploymentRow]:
    """The rows of a recipe (or of all), of a version (or of all), newest first."""
    from sqlalchemy import select

    query = select(DeploymentRow).order_by(DeploymentRow.id.desc()).limit(limit)
    if recipe_name is not None:
        query = query.where(DeploymentRow.recipe_name == recipe_name)
    if version is not None:
        query = query.where(DeploymentRow.model_version == version)
    with workspace.session() as session:
        return list(session.scalars(query))
