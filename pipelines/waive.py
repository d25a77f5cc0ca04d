"""Waiving a closed gate: a named person's decision, bound to the report on the present inputs."""

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from cluster.errors import GateClosed, UserError
from pipelines.gates import Verdict, Waiver, report_key
from pipelines.recipe import Recipe
from pipelines.section import nearest
from pipelines.stages import STAGES, load_stage
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.stage import Stage

LONGEST_NAME, LONGEST_REASON = 255, 2000


def waive(
    recipe: Recipe, workspace: Workspace, gate: str, *, by: str, because: str, until: datetime | None = None
) -> Waiver:
    """Record that `by` lets `gate` pass for exactly the present inputs; the waiver as stored.

    Raises UserError when the gate is unknown or not closed, a name, reason or date does not hold, and
    GateClosed when there is no report on the present inputs: nobody waives what was not looked at.
    """
    now = datetime.now(UTC)
    by, because = plain("--by", by, LONGEST_NAME), plain("--because", because, LONGEST_REASON)
    if until is not None and until <= now:
        raise UserError(f"--until {until:%Y-%m-%d %H:%M} UTC is in the past.", "Name a day to come, or leave it out.")
    stage = stage_of(gate)
    key = report_key(stage.name, stage.reads(recipe, workspace))
    report = workspace.find_report(stage.name, key)
    if report is None:
        raise GateClosed(
            f"{recipe.name}: there is no {stage.name} report on the present inputs, so there is nothing to waive.",
            f"Run `sluice {stage.name} RECIPE` first.",
        )
    found = next(item for item in report.gates if item.gate == gate)
    if found.verdict is Verdict.WAIVED:
        present = next(waiver for waiver in report.waivers if waiver.gate == gate)
        # A later end is a new decision; anything else would only blur who decided.
        if present.until is None or (until is not None and until <= present.until):
            ends = f"until {present.until:%Y-%m-%d}" if present.until else "without an end"
            raise UserError(f"{gate} is waived already, by {present.by}, {ends}.", "Nothing is left to waive.")
    elif found.verdict is not Verdict.CLOSED:
        raise UserError(f"{gate} is {found.verdict}, not closed: {found.evidence}", "Nothing is left to waive.")
    waiver = Waiver(gate=gate, report=key, by=by, because=because, until=until, created_at=now)
    workspace.save_waiver(waiver)
    return waiver


def stage_of(gate: str) -> "Stage":
    """The stage that decides `gate`. Raises UserError that suggests the nearest gate."""
    stages = [load_stage(name) for name in STAGES]
    for stage in stages:
        if gate in stage.gates:
            return stage
    known = [known for stage in stages for known in stage.gates]
    raise UserError(f"{gate!r} is no gate{nearest(gate, known)}", f"The gates: {', '.join(known)}.")


def end_of(day: str) -> datetime:
    """The last second (UTC) of an ISO date, or the very moment of an ISO date and time. Raises UserError."""
    try:
        moment = datetime.fromisoformat(day)
    except ValueError:
        raise UserError(f"--until {day!r} is no date.", "Write it as 2030-12-31.") from None
    if len(day) <= len("2030-12-31"):
        moment = datetime.combine(moment.date(), time(23, 59, 59))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def plain(option: str, text: str, longest: int, needed: str = "A waiver carries a name and a reason for ever.") -> str:
    """The text without the space around it.

    Raises UserError unless it is one line of at most `longest` characters; `needed` says why it may not be empty.
    """
    text = text.strip()
    if not text:
        raise UserError(f"{option} is empty.", needed)
    if len(text) > longest:
        raise UserError(f"{option} has {len(text)} characters.", f"Keep it within {longest}.")
    if not text.isprintable():
        raise UserError(f"{option} holds line breaks or control characters.", "Write it on one line.")
    return text
