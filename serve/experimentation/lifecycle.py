"""Experiments from their start to their end. Each step is a row; the one that ends an experiment is the switch."""

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import GateClosed, UserError
from pipelines.recipe import Recipe
from pipelines.recipe_experiment import Experiment
from pipelines.records import DeploymentRow, ExperimentEventRow, ExperimentRow, now
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

RUNNING, PAUSED, ENDED = "running", "paused", "ended"


def start(workspace: Workspace, recipe: Recipe, by: str) -> ExperimentRow:
    """The experiment that `recipe` describes, running. Gateways follow within ten seconds.

    Raises UserError when the recipe describes none, it cannot decide, or one runs already; GateClosed when nothing is
    promoted.
    """
    from sqlalchemy.exc import IntegrityError

    from pipelines.tracking import deployments
    from serve.experimentation.design import check_can_end, size_of

    section = described(recipe)
    _check_by(by)
    planned = size_of(section).planned
    check_can_end(section, planned)
    deployment = deployments.current(workspace, recipe.name)
    if deployment is None:
        raise GateClosed(
            f"{recipe.name}: nothing is promoted, so there is nothing to try.", "Run `sluice promote RECIPE` first."
        )
    row = ExperimentRow(
        recipe_name=recipe.name,
        deployment_id=deployment.id,
        model_version=deployment.model_version,
        design=section.model_dump(mode="json"),
        planned=planned,
        # Another one each time: who met the tried arm last time must not meet it again by rule.
        seed=f"{recipe.name}:{secrets.token_hex(8)}",
        state=RUNNING,
        live=recipe.name,
        coverage=section.coverages[0],
        by=by,
    )
    try:
        with workspace.session() as session:
            session.add(row)
            session.flush()
            _note(session, row.id, "start", by, {"planned": planned, "coverage": row.coverage})
    except IntegrityError:
        running = live(workspace, recipe.name)
        number = "" if running is None else f" {running.id}"
        raise UserError(
            f"{recipe.name}: experiment{number} runs already.",
            "End it first: `sluice experiment stop RECIPE --because ...`.",
        ) from None
    return row


def live(workspace: Workspace, recipe_name: str) -> ExperimentRow | None:
    """The experiment that has not ended, or None."""
    from sqlalchemy import select

    with workspace.session() as session:
        return session.scalar(select(ExperimentRow).where(ExperimentRow.live == recipe_name))


def latest(workspace: Workspace, recipe_name: str, number: int | None = None) -> ExperimentRow:
    """Experiment `number`, or the newest one. Raises UserError when there is none."""
    rows = listed(workspace, recipe_name)
    if not rows:
        raise UserError(f"{recipe_name} has had no experiment.", "`sluice experiment start RECIPE` starts one.")
    found = next((row for row in rows if number in (None, row.id)), None)
    if found is None:
        known = ", ".join(str(row.id) for row in rows[:20])
        raise UserError(f"{recipe_name} has no experiment {number}.", f"There are: {known}.")
    return found


def listed(workspace: Workspace, recipe_name: str | None = None) -> list[ExperimentRow]:
    """The experiments of a recipe, or of all, newest first."""
    from sqlalchemy import select

    query = select(ExperimentRow).order_by(ExperimentRow.id.desc())
    if recipe_name is not None:
        query = query.where(ExperimentRow.recipe_name == recipe_name)
    with workspace.session() as session:
        return list(session.scalars(query))


def events_of(workspace: Workspace, experiment_id: int) -> list[ExperimentEventRow]:
    """What happened in an experiment, oldest first."""
    from sqlalchemy import select

    query = select(ExperimentEventRow).where(ExperimentEventRow.experiment_id == experiment_id)
    with workspace.session() as session:
        return list(session.scalars(query.order_by(ExperimentEventRow.id)))


def last_look(workspace: Workspace, experiment_id: int) -> dict[str, Any] | None:
    """The last look that was kept, as it was kept, or None."""
    from sqlalchemy import select

    event = ExperimentEventRow
    query = select(event.content).where(event.experiment_id == experiment_id, event.action == "look")
    with workspace.session() as session:
        return session.scalars(query.order_by(event.id.desc()).limit(1)).first()


def pause(workspace: Workspace, recipe_name: str, by: str, because: str) -> ExperimentRow:
    """Let nobody new in; who has met an arm goes on meeting it. Raises UserError when none runs."""
    return _change(workspace, recipe_name, by, because, "pause", PAUSED)


def resume(workspace: Workspace, recipe_name: str, by: str, because: str) -> ExperimentRow:
    """Let new units in again. Raises UserError when none is paused."""
    return _change(workspace, recipe_name, by, because, "resume", RUNNING)


def cover(workspace: Workspace, row: ExperimentRow, coverage: float, by: str, because: str = "") -> bool:
    """Take in that share of all units from now on; False when it has ended or covers as much already.

    Only ever more: whoever has met an arm stays.
    """
    from sqlalchemy import update

    if not 0 < coverage <= 1:
        raise UserError(f"The coverage is {coverage:g}.", "Give the share of the units to take in, above 0, at most 1.")
    grown = (
        update(ExperimentRow)
        .where(ExperimentRow.id == row.id, ExperimentRow.live.is_not(None), ExperimentRow.coverage < coverage)
        .values(coverage=coverage, covered_at=now())
    )
    with workspace.session() as session:
        if not session.execute(grown).rowcount:  # type: ignore[attr-defined]
            return False
        _note(session, row.id, "cover", by, {"coverage": coverage, "because": because})
    return True


def looked(workspace: Workspace, row: ExperimentRow, by: str, content: dict[str, Any] | None) -> None:
    """Record that somebody looked, and what there was to see, if it is worth keeping."""
    from sqlalchemy import update

    with workspace.session() as session:
        session.execute(update(ExperimentRow).where(ExperimentRow.id == row.id).values(looked_at=now()))
        if content is not None:
            _note(session, row.id, "look", by, content)


def end(
    workspace: Workspace,
    row: ExperimentRow,
    outcome: str,
    *,
    by: str,
    because: str,
    evidence: dict[str, Any] | None = None,
    champion: str | None = None,
) -> DeploymentRow | None:
    """End an experiment and, where `champion` names an arm, send all traffic to it.

    One transaction, which is the switch. The new row of the deployment log; None when nothing was switched: `champion`
    is None, or there is a newer deployment than the one that was tried, whose models nobody has compared.

    Raises UserError when it has ended already: another one was first.
    """
    from sqlalchemy import update

    from pipelines.tracking import deployments

    ending = (
        update(ExperimentRow)
        .where(ExperimentRow.id == row.id, ExperimentRow.live.is_not(None))
        .values(state=ENDED, live=None, outcome=outcome, ended_at=now())
    )
    with workspace.session() as session:
        if not session.execute(ending).rowcount:  # type: ignore[attr-defined]
            raise UserError(f"Experiment {row.id} of {row.recipe_name} has ended meanwhile.", "Look at how it ended.")
        if champion is not None and deployments.newest(session, row.recipe_name).id != row.deployment_id:
            champion, because = None, f"{because} ({_superseded(row)})"
        note = {"outcome": outcome, "because": because, "champion": champion, "evidence": evidence}
        _note(session, row.id, "end", by, note)
        return None if champion is None else _switch(session, row, champion, note, by)


def stop(workspace: Workspace, recipe_name: str, by: str, because: str) -> DeploymentRow | None:
    """End without a verdict; the new row of the log, by which the control serves everyone.

    None: there is a newer deployment than it tried, which stays. Raises UserError when none runs, or it ends in this
    very moment.
    """
    row = _must_run(workspace, recipe_name, by, because)
    return end(workspace, row, "stopped", by=by, because=because, champion=section_of(row).control)


def promote(workspace: Workspace, recipe_name: str, by: str, because: str = "") -> DeploymentRow:
    """All traffic to the tried arm of the newest experiment; the new row of the log.

    Raises GateClosed when its verdict is not `better`, unless `because` says why it shall be done all the same: that
    is kept with the deployment. Raises UserError where there is a newer deployment than it tried or led to.
    """
    from pipelines.tracking import deployments
    from serve.experimentation.look import evidence_of, look

    _check_by(by)
    row = latest(workspace, recipe_name)
    section = section_of(row)
    deployment = deployments.current(workspace, recipe_name)
    assert deployment is not None, "an experiment stands on a deployment"
    led_to = (deployment.content.get("experiment") or {}).get("experiment") == row.id
    if deployment.id != row.deployment_id and not led_to:
        raise UserError(
            f"Experiment {row.id}: {_superseded(row)}.", "Start an experiment of the models that are in production."
        )
    if led_to and deployments.traffic_of(deployment) == {section.treated: 1.0}:
        return deployment
    seen = look(workspace, row)
    verdict = seen.verdict
    if verdict.outcome != "better" and not because.strip():
        raise GateClosed(
            f"experiment.verdict: {verdict.sentence}.",
            'Go on until it is better; or promote all the same with --because "...", which is kept for ever.',
        )
    because = because.strip() or verdict.sentence
    note = {"outcome": verdict.outcome, "because": because, "champion": section.treated, "evidence": evidence_of(seen)}
    if row.live is not None:
        outcome = "better" if verdict.outcome == "better" else "promoted"
        switched = end(
            workspace, row, outcome, by=by, because=because, evidence=evidence_of(seen), champion=section.treated
        )
        if switched is None:
            raise UserError(
                f"Nothing was promoted: {_superseded(row)}.", "Start an experiment of the newest deployment."
            )
        return switched
    # It had ended without a promotion: the evidence is what it showed.
    with workspace.session() as session:
        _note(session, row.id, "promote", by, note)
        return _switch(session, row, section.treated, note, by)


def section_of(row: ExperimentRow) -> Experiment:
    """The recipe's section as it was at the start."""
    return Experiment.model_validate(row.design)


def _superseded(row: ExperimentRow) -> str:
    return f"deployment {row.deployment_id}, which it tried, is no longer in production"


def _switch(session: "Session", row: ExperimentRow, champion: str, note: dict[str, Any], by: str) -> DeploymentRow:
    from pipelines.tracking import deployments

    action = deployments.PROMOTE if champion == section_of(row).treated else deployments.ROLLBACK
    return deployments.switch_traffic(
        session, row.recipe_name, {champion: 1.0}, action=action, note={"experiment": row.id} | note, by=by
    )


def _change(workspace: Workspace, recipe_name: str, by: str, because: str, action: str, state: str) -> ExperimentRow:
    from sqlalchemy import update

    row = _must_run(workspace, recipe_name, by, because)
    changing = (
        update(ExperimentRow)
        .where(ExperimentRow.id == row.id, ExperimentRow.live.is_not(None), ExperimentRow.state != state)
        .values(state=state)
    )
    with workspace.session() as session:
        if not session.execute(changing).rowcount:  # type: ignore[attr-defined]
            raise UserError(f"Experiment {row.id} of {recipe_name} is {state} already.", "There is nothing to change.")
        _note(session, row.id, action, by, {"because": because})
    return latest(workspace, recipe_name, row.id)


def _must_run(workspace: Workspace, recipe_name: str, by: str, because: str) -> ExperimentRow:
    _check_by(by)
    if not because.strip():
        raise UserError("Changing an experiment needs the reason.", 'Give --because "...".')
    row = live(workspace, recipe_name)
    if row is None:
        raise UserError(f"{recipe_name} has no experiment that runs.", "`sluice experiment start RECIPE` starts one.")
    return row


def described(recipe: Recipe) -> Experiment:
    """The recipe's section. Raises UserError where it has none."""
    if recipe.experiment is None:
        raise UserError(
            f"{recipe.name} describes no experiment.",
            "Give the recipe a section `experiment` with at least `primary` and `planned_units`.",
        )
    return recipe.experiment


def _check_by(by: str) -> None:
    if not by.strip():
        raise UserError("It is not said who decides.", "Give --by NAME.")


def _note(session: "Session", experiment_id: int, action: str, by: str, content: dict[str, Any]) -> None:
    session.add(ExperimentEventRow(experiment_id=experiment_id, action=action, by=by, content=content))


def shares(traffic: Mapping[str, float]) -> str:
    """`tuned 100 %`, for people."""
    total = sum(traffic.values())
    return ", ".join(f"{arm} {100 * weight / total:.0f} %" for arm, weight in traffic.items() if weight)
