"""What the panel reads of production: what is in force, and every deployment that there was."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ui.panel import backend
from ui.panel.last_known import Known, Problem, problem_of

if TYPE_CHECKING:
    from pipelines.records import DeploymentRow
    from serve.arm_figures import ArmFigures
    from serve.traffic import Running

ANSWERS_HOURS = 24
"""How far back the page looks at answers."""


@dataclass(frozen=True)
class Deployment:
    """A row of the deployment log, as the page shows it."""

    number: int
    recipe_name: str
    at: datetime
    action: str
    model: str
    version: str
    by: str
    traffic: str
    """`tuned 100 %`; empty where nothing is on record."""
    decided: bool
    """Whether an experiment decided the traffic; else it is the recipe's."""
    because: str
    restores: int | None
    """Of a rollback, the deployment that it restored."""
    experiment: int | None
    """The experiment that decided its traffic."""
    report: str | None
    """Key of the evaluation's report that its model passed with."""
    train: dict[str, Any]
    """Its model: address of the files, method, base, fingerprints."""


@dataclass(frozen=True)
class InForce:
    """What is in production for a recipe."""

    deployment: Deployment
    running: "Running | None"
    """The experiment that shares its users out at present."""


def in_force() -> Known[list[InForce]]:
    """What is in production, a recipe each, the newest change first."""
    return backend.from_database("in force", _in_force, "The deployment log")


def _in_force() -> list[InForce]:
    from sqlalchemy import func, select

    from pipelines.records import DeploymentRow
    from serve.traffic import read_traffic

    newest = select(func.max(DeploymentRow.id)).group_by(DeploymentRow.recipe_name).scalar_subquery()
    query = select(DeploymentRow).where(DeploymentRow.id.in_(newest)).order_by(DeploymentRow.id.desc())
    workspace = backend.workspace()
    with workspace.session() as session:
        rows = list(session.scalars(query))
    return [InForce(_deployment(row), read_traffic(workspace, row.recipe_name).experiment) for row in rows]


def log(recipe_name: str) -> Known[list[Deployment]]:
    """Every deployment of a recipe, newest first: the first one is in force."""

    def read() -> list[Deployment]:
        from pipelines.tracking import deployments

        return [_deployment(row) for row in deployments.history(backend.workspace(), recipe_name)]

    return backend.from_database(("deployment log", recipe_name), read, "The deployment log")


def answers(recipe_name: str) -> "Known[list[ArmFigures]]":
    """How each arm has answered lately."""

    def read() -> "list[ArmFigures]":
        from pipelines.records import now
        from serve.arm_figures import arm_figures

        return arm_figures(backend.workspace(), recipe_name, now() - timedelta(hours=ANSWERS_HOURS))

    return backend.from_database(("answers", recipe_name), read, "What was answered")


def _deployment(row: "DeploymentRow") -> Deployment:
    from pipelines.tracking import deployments
    from serve.experimentation.lifecycle import shares

    content, decided = row.content, deployments.traffic_of(row)
    weights = decided or ((content.get("recipe") or {}).get("serve") or {}).get("weights")
    rollback, experiment = content.get("rollback") or {}, content.get("experiment") or {}
    # A deployment that was restored keeps what its own traffic came of; why it was restored says more.
    because = rollback.get("because") or experiment.get("because") or ""
    return Deployment(
        number=row.id,
        recipe_name=row.recipe_name,
        at=row.created_at,
        action=row.action,
        model=row.model_name,
        version=row.model_version,
        by=row.by,
        traffic=shares(weights) if weights else "",
        decided=decided is not None,
        because=str(because),
        restores=rollback.get("restores"),
        experiment=experiment.get("experiment"),
        report=((content.get("reports") or {}).get("evaluate") or {}).get("key"),
        train=content.get("train") or {},
    )


def roll_back(deployment: Deployment, by: str, because: str) -> Known[int]:
    """Put this deployment back in force; the number of the new row of the log."""
    from pipelines.rollback import rollback

    if not by.strip() or not because.strip():
        told = Problem("Nothing was changed: a rollback needs a name and the reason.", "Fill in both, and click again.")
        return Known(None, None, told)
    try:
        row = rollback(backend.workspace(), deployment.recipe_name, deployment.number, by, because)
    except Exception as error:
        # Whatever went wrong is a sentence on the page.
        return Known(None, None, problem_of(error, "The deployment log", backend.DATABASE_REMEDY))
    return Known(row.id, None)
