"""Every read of the panel, as typed functions over the workspace and tracking; `gateway.py` has those of the service.

Each returns what is known with its age (`Known`): a source that is away leaves the last state and says what to do.
"""

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from cluster.settings import Settings
from pipelines.gates import Report, Verdict
from pipelines.workspace import Workspace
from ui.panel.last_known import Known, LastKnown

if TYPE_CHECKING:
    from pipelines.records import DeploymentRow
    from pipelines.tracking.runs import RunSummary
    from pipelines.tracking.submission_log import Submission

T = TypeVar("T")
State = Literal["open", "closed", "waived", "not_yet", "not_in_recipe"]
Conclusion = Literal["better", "worse", "undecided", ""]
DATABASE_REMEDY = "Check SLUICE_DATABASE and SLUICE_STORAGE; `sluice doctor` looks at both."
TRACKING_REMEDY = "Check SLUICE_TRACKING; `sluice doctor` looks at it."
RAY_REMEDY = "Check RAY_ADDRESS; `sluice doctor` looks at it."

known = LastKnown(deadline_s=float(os.environ.get("SLUICE_PANEL_DEADLINE_S", "10")))


@dataclass(frozen=True)
class RecipeSummary:
    """A recipe that has left at least one report here."""

    name: str
    stage: str
    """Stage of its newest report."""
    verdict: str
    reported_at: datetime


@dataclass(frozen=True)
class StageView:
    """A stage of the pipeline as the overview shows it."""

    name: str
    state: State
    gates: tuple[str, ...]
    """The gates that it decides."""
    report: Report | None
    changed: tuple[str, ...] = ()
    """Inputs that an earlier stage has seen anew since this report was written: it opens nothing now."""


@dataclass(frozen=True)
class Pipeline:
    """The stages of a recipe, in order."""

    recipe_name: str
    recipe: dict[str, Any]
    """The resolved recipe of the newest report."""
    stages: tuple[StageView, ...]

    def stage(self, name: str) -> StageView:
        """The stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class Comparison:
    """One metric of base against tuned, from the evaluation's report."""

    metric: str
    base: float | None
    tuned: float | None
    difference: float | None
    """Tuned minus base."""
    low: float | None
    high: float | None
    n: int | None
    conclusion: Conclusion
    """What the interval says of the tuned model."""


@dataclass(frozen=True)
class RunView:
    """A tracked run with its curves."""

    run: "RunSummary"
    curves: dict[str, list[tuple[int, float, float]]]
    """Metric -> (step, value, unix time)."""
    report: Report | None
    """The train or sweep report that names this run."""


def workspace() -> Workspace:
    """The workspace that the environment names; one a process."""
    return _workspace(Settings.from_environment())


@lru_cache(maxsize=4)
def _workspace(settings: Settings) -> Workspace:
    return Workspace(settings)


def from_database(key: Hashable, read: Callable[[], T], what: str = "The database") -> Known[T]:
    """What `read` finds in the database; after a failure the next read opens it anew (it may be another one)."""

    def guarded() -> T:
        try:
            return read()
        except SQLAlchemyError:
            workspace().database.dispose()
            _workspace.cache_clear()
            raise

    return known.read((key, workspace().settings), what, DATABASE_REMEDY, guarded)


def recipes() -> Known[list[RecipeSummary]]:
    """The recipes with reports here, the most recent first."""
    return from_database("recipes", _recipes)


def _recipes() -> list[RecipeSummary]:
    from sqlalchemy import func, select

    from pipelines.records import ReportRow

    newest = select(func.max(ReportRow.id)).group_by(ReportRow.recipe_name).scalar_subquery()
    query = select(ReportRow.recipe_name, ReportRow.stage, ReportRow.verdict, ReportRow.created_at)
    with workspace().session() as session:
        rows = session.execute(query.where(ReportRow.id.in_(newest)).order_by(ReportRow.id.desc())).all()
    return [RecipeSummary(*row) for row in rows]


def pipeline(recipe_name: str) -> Known[Pipeline | None]:
    """The newest report of each stage of this recipe; the value is None when there is no report at all."""
    return from_database(("pipeline", recipe_name), lambda: _pipeline(recipe_name))


def _pipeline(recipe_name: str) -> Pipeline | None:
    from pipelines.stages import STAGES

    newest = {}
    for name in STAGES:
        found = workspace().reports(stage=name, recipe_name=recipe_name, limit=1)
        if found:
            newest[name] = found[0]
    if not newest:
        return None
    recipe = max(newest.values(), key=lambda report: report.created_at).recipe
    stages: list[StageView] = []
    for name in STAGES:
        stages.append(_stage_view(name, newest.get(name), recipe, [s.report for s in stages if s.report]))
    return Pipeline(recipe_name, recipe, tuple(stages))


def _stage_view(name: str, report: Report | None, recipe: dict[str, Any], earlier: list[Report]) -> StageView:
    from pipelines.stages import GATES

    gates = GATES[name]
    if name == "sweep" and not recipe.get("sweep"):
        return StageView(name, "not_in_recipe", gates, None)
    if report is None:
        return StageView(name, "not_yet", gates, None)
    states: dict[Verdict, State] = {Verdict.CLOSED: "closed", Verdict.WAIVED: "waived"}
    return StageView(name, states.get(report.verdict, "open"), gates, report, changed_inputs(report, earlier))


def changed_inputs(report: Report, earlier: list[Report]) -> tuple[str, ...]:
    """What `report` read that the reports of earlier stages, which read or left it too, now have otherwise."""
    # Only what links reports: other names (model, version, train) mean different things to different stages.
    names = {"dataset" if earlier else "", *(before.stage for before in earlier)}
    present: set[str] = set()
    for before in earlier:
        # A stage names what it read from the one before by that report's key, or by what it left.
        present |= {before.key, *before.fingerprints.values(), *before.produced.values()}
    return tuple(sorted(n for n, value in report.fingerprints.items() if n in names and value not in present))


def report(key: str) -> Known[Report | None]:
    """The newest report under this key, waivers applied; the value is None when there is none."""

    def read() -> Report | None:
        found = workspace().reports(key=key, limit=1)
        return found[0] if found else None

    return from_database(("report", key), read)


def comparisons(evaluation: Report) -> list[Comparison]:
    """The rows of base against tuned, in the report's order, the primary metric first."""
    figures = evaluation.figures
    candidates = figures.get("candidates") or {}
    base, tuned = candidates.get("base") or {}, candidates.get("tuned") or {}
    intervals = figures.get("comparisons") or {}
    primary = (evaluation.recipe.get("evaluate") or {}).get("primary")
    metrics = [name for name, value in (base | tuned).items() if isinstance(value, int | float)]
    return [
        _comparison(metric, base.get(metric), tuned.get(metric), intervals.get(metric) or {})
        for metric in sorted(metrics, key=lambda metric: metric != primary)
    ]


def _comparison(metric: str, base: float | None, tuned: float | None, interval: dict[str, Any]) -> Comparison:
    low, high = interval.get("low"), interval.get("high")
    conclusion = "" if low is None or high is None else _conclusion(metric, low, high)
    return Comparison(metric, base, tuned, interval.get("difference"), low, high, interval.get("n"), conclusion)


def _conclusion(metric: str, low: float, high: float) -> Conclusion:
    if low <= 0 <= high:
        return "undecided"
    lower_is_better = metric in ("loss", "perplexity")
    return "better" if (high < 0) == lower_is_better else "worse"


def deployments(recipe_name: str) -> "Known[list[DeploymentRow]]":
    """What was put into production, newest first."""

    def read() -> "list[DeploymentRow]":
        from pipelines.tracking.deployments import history

        return history(workspace(), recipe_name, limit=20)

    return from_database(("deployments", recipe_name), read, "The deployment log")


def submissions(recipe_name: str | None) -> "Known[list[Submission]]":
    """Submitted stages of this recipe, or of all, newest first; where Ray is away, as it last told (`seen_at`)."""

    def read() -> "list[Submission]":
        from pipelines import submissions

        listed = submissions.submissions(workspace(), limit=200)
        return [s for s in listed if recipe_name is None or s.recipe_name == recipe_name]

    return known.read(("submissions", workspace().settings, recipe_name), "Ray", RAY_REMEDY, read)


def runs(recipe_name: str | None, *, deadline_s: float | None = None) -> "Known[list[RunSummary]]":
    """Tracked runs (training, sweeps and their trials), newest first."""

    def read() -> "list[RunSummary]":
        from pipelines.tracking.runs import list_runs

        return list_runs(workspace().settings, recipe_name)

    key = ("runs", workspace().settings, recipe_name)
    return known.read(key, "Tracking", TRACKING_REMEDY, read, deadline_s=deadline_s)


def run(run_id: str) -> Known[RunView | None]:
    """One run with its curves; the value is None when tracking knows no such run."""
    return known.read(("run", workspace().settings, run_id), "Tracking", TRACKING_REMEDY, lambda: _run(run_id))


def _run(run_id: str) -> RunView | None:
    from pipelines.tracking.runs import find_run, metric_history

    found = find_run(workspace().settings, run_id)
    if found is None:
        return None
    return RunView(found, metric_history(workspace().settings, run_id), _report_of(found))


def _report_of(run: "RunSummary") -> Report | None:
    """The report whose `run_id` this is."""
    for stage in ("train", "sweep"):
        for candidate in workspace().reports(stage=stage, recipe_name=run.recipe_name, limit=20):
            if candidate.produced.get("run_id") == run.run_id:
                return candidate
    return None


def running_stages(recipe_name: str) -> set[str]:
    """Stages of this recipe at work now, as far as their jobs and tracked runs tell."""
    at_work = {s.stage for s in submissions(recipe_name).value or [] if s.state == "running"}
    # The pipeline waits for no tracking server: what is known by now is enough.
    tracked = {run.stage for run in runs(recipe_name, deadline_s=0.2).value or [] if run.status == "RUNNING"}
    return at_work | {"sweep" if stage == "trial" else stage for stage in tracked}
