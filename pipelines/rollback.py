"""Rollback: put an earlier deployment back, as a new row of the log."""

from cluster.errors import UserError
from pipelines.records import DeploymentRow
from pipelines.tracking import deployments
from pipelines.workspace import Workspace


def rollback(workspace: Workspace, recipe_name: str, to: int | None, by: str, because: str) -> DeploymentRow:
    """Restore deployment `to`, or the one before the present one; the new row of the log.

    Raises UserError when there is nothing earlier, `to` is unknown, or its model's files are gone or changed.
    """
    from pipelines.tracking.lineage import model_problem

    if not by.strip() or not because.strip():
        raise UserError("A rollback needs who decided it and why.", 'Give --by NAME and --because "...".')
    rows = deployments.history(workspace, recipe_name)
    if not rows:
        raise UserError(f"{recipe_name} was never deployed.", "`sluice promote RECIPE` deploys it.")
    target = _previous(rows) if to is None else _named(rows, to)
    if problem := model_problem(workspace, target.content["train"]):
        raise UserError(
            f"Deployment {target.id} (version {target.model_version}) cannot be restored: {problem}.",
            "Restore the files, or name another deployment with --to ID.",
        )
    note = {"restores": deployments.origin(target), "replaces": rows[0].id, "because": because}
    row = deployments.append(
        workspace,
        recipe_name=recipe_name,
        action=deployments.ROLLBACK,
        model_name=target.model_name,
        model_version=target.model_version,
        content=target.content | {"rollback": note},
        by=by,
    )
    deployments.follow_alias(workspace, recipe_name)
    return row


def _previous(rows: list[DeploymentRow]) -> DeploymentRow:
    """What was before the one in production; a second rollback goes further back, never forth again.

    That is a promotion, or the base where an experiment had put it back: its version's promotions before that never
    come back by themselves.
    """
    present, put_back = rows[0], set()
    for row in rows:
        to_base = deployments.champion_of(row) is None
        fit = to_base or (row.action == deployments.PROMOTE and row.model_version not in put_back)
        if fit and row.id < deployments.origin(present) and _state(row) != _state(present):
            return row
        if to_base:
            put_back.add(row.model_version)
    raise UserError(
        f"{present.recipe_name}: there is nothing before version {present.model_version} to go back to.",
        "Name a deployment with --to ID, or promote another model.",
    )


def _state(row: DeploymentRow) -> tuple[str, dict[str, float] | None]:
    """What of a deployment its users meet."""
    return row.model_version, deployments.traffic_of(row)


def _named(rows: list[DeploymentRow], to: int) -> DeploymentRow:
    for row in rows:
        if row.id == to:
            if _state(row) == _state(rows[0]):
                raise UserError(
                    f"Deployment {to} (version {row.model_version}) is what is in production.",
                    "Name another one with --to ID.",
                )
            return row
    known = ", ".join(f"{row.id} (version {row.model_version}, {row.action})" for row in rows[:10])
    raise UserError(f"{rows[0].recipe_name} has no deployment {to}.", f"There are: {known}.")
