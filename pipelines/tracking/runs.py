"""MLflow runs: metrics as they come, kept through an outage, and read back for the panel."""

import atexit
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.settings import Settings

EXPERIMENT = "sluice"
RETRY_S = 20.0
"""After a failure the tracking server is left alone for so long: training's driver must not wait on it."""
MAX_PENDING = 200_000
"""Points kept while the server is away; beyond it the oldest go."""
REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED")
"""MLflow's words for what ails one run (somebody deleted it), and not the server."""
BATCH = 1000
"""Points in one request: MLflow's limit."""


@dataclass(frozen=True)
class RunSummary:
    """A tracked run, as lists show it."""

    run_id: str
    name: str
    recipe_name: str
    stage: str
    """train, sweep or trial."""
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    started_at: datetime
    ended_at: datetime | None
    params: dict[str, str]
    metrics: dict[str, float]
    """The latest value of each."""
    tags: dict[str, str]


@dataclass
class _Pending:
    points: list[tuple[str, float, int, int]] = field(default_factory=list)
    """(metric, value, step, unix time in ms)"""
    ending: str | None = None
    refused_until: float = 0.0


class Tracker:
    """One process's door to a tracking server; an outage delays points, and what it costs at last is said."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._client: Any = None
        self._pending: dict[str, _Pending] = {}
        self._down_until = 0.0
        self._lost = 0

    @property
    def client(self) -> Any:
        """MLflow's client."""
        if self._client is None:
            from mlflow import MlflowClient

            # It tells of each table that it makes.
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = MlflowClient(self.tracking_uri)
        return self._client

    def log(self, run_id: str, metrics: dict[str, float], step: int, at: float | None = None) -> None:
        """Keep the values of one step; sent now, or when the server is back."""
        pending = self._pending.setdefault(run_id, _Pending())
        when = round((time.time() if at is None else at) * 1000)
        pending.points += [(name, float(value), step, when) for name, value in metrics.items()]
        self._lost += len(pending.points[:-MAX_PENDING])
        del pending.points[:-MAX_PENDING]
        self.flush()

    def end(self, run_id: str, status: str) -> None:
        """Mark the run's end, after its last points."""
        self._pending.setdefault(run_id, _Pending()).ending = status
        self._down_until = 0.0
        self.flush()

    def pending(self) -> int:
        """Points that are still to be sent."""
        return sum(len(pending.points) for pending in self._pending.values())

    def flush(self) -> bool:
        """Send what is kept; whether nothing is left."""
        if time.monotonic() < self._down_until:
            return False
        whole = True
        for run_id, pending in list(self._pending.items()):
            if time.monotonic() < pending.refused_until:
                whole = False
                continue
            try:
                self._send(run_id)
            except Exception as error:
                whole = False
                if getattr(error, "error_code", "") in REFUSALS:
                    # This run alone, such as one that was deleted: the others must not wait behind it.
                    pending.refused_until = time.monotonic() + RETRY_S
                    continue
                # Whatever ails the server (network, disk, lock): training goes on, the points stay.
                self._down_until = time.monotonic() + RETRY_S
                break
        return whole

    def close(self) -> int:
        """Try once more, and warn of what could not be sent; how many points are lost."""
        self.flush()
        lost = self._lost + self.pending()
        if lost:
            runs = sum(1 for pending in self._pending.values() if pending.points)
            logging.getLogger(__name__).warning(
                "%d points of %d runs are lost: the tracking server did not take them.", lost, runs
            )
        self._pending.clear()
        self._lost = 0
        return lost

    def _send(self, run_id: str) -> None:
        from mlflow.entities import Metric

        pending = self._pending[run_id]
        while pending.points:
            part = pending.points[:BATCH]
            self.client.log_batch(run_id, metrics=[Metric(name, value, at, step) for name, value, step, at in part])
            del pending.points[: len(part)]
        if pending.ending:
            self.client.set_terminated(run_id, pending.ending)
            del self._pending[run_id]


_trackers: dict[str, Tracker] = {}


def tracker(settings: Settings) -> Tracker:
    """This process's tracker for the settings' server."""
    if settings.tracking_uri not in _trackers:
        _trackers[settings.tracking_uri] = Tracker(settings.tracking_uri)
        # What a process cannot send before it ends is lost, and somebody should know.
        atexit.register(_trackers[settings.tracking_uri].close)
    return _trackers[settings.tracking_uri]


def start_run(settings: Settings, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
    """Id of a run with these tags and parameters: the unfinished one of the same key and name, or a new one.

    Returns an empty id when the server is away: then nothing is tracked, and training goes on.
    """
    try:
        return _start_run(tracker(settings).client, name, tags, params)
    except Exception:
        # Also a database that cannot be opened: tracking is never a reason not to train.
        return ""


def _start_run(client: Any, name: str, tags: dict[str, str], params: dict[str, Any]) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else _create_experiment(client)
    if "sluice.key" in tags:
        found = client.search_runs(
            [experiment_id],
            f"tags.`sluice.key` = '{tags['sluice.key']}' and tags.`mlflow.runName` = '{name}'",
            max_results=1,
        )
        if found and found[0].info.status != "FINISHED":
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            # It may go on in another job.
            for key, value in tags.items():
                if found[0].data.tags.get(key) != value:
                    client.set_tag(run_id, key, value)
            return run_id
    run = client.create_run(experiment_id, run_name=name, tags={**tags, "mlflow.source.name": "sluice"})
    from mlflow.entities import Param

    # 6,000 characters is what MLflow keeps of a value.
    values = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for start in range(0, len(values), 100):
        client.log_batch(run.info.run_id, params=values[start : start + 100])
    return str(run.info.run_id)


def _create_experiment(client: Any) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(EXPERIMENT))
    except MlflowException:
        # Another process was first.
        return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


def log_metrics(settings: Settings, run_id: str, metrics: dict[str, float], step: int, at: float | None = None) -> None:
    """Add the values of one step to a run; never fails, and an outage only delays them.

    `at`: the unix time in seconds when they were so; now, without it.
    """
    if run_id:
        tracker(settings).log(run_id, metrics, step, at)


def end_run(settings: Settings, run_id: str, status: str = "FINISHED") -> None:
    """Mark a run's end: FINISHED, FAILED or KILLED."""
    if run_id:
        tracker(settings).end(run_id, status)


def end_children(settings: Settings, parent: str) -> None:
    """Mark the end of the runs below a run that nobody goes on with, such as those of a driver that was killed."""
    if not parent:
        return
    try:
        client = tracker(settings).client
        # There is one, as the parent is in it.
        experiment = client.get_experiment_by_name(EXPERIMENT)
        open_ones = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        left = client.search_runs([experiment.experiment_id], open_ones)
    except Exception:
        # As everywhere: tracking that is away is no reason to fail.
        return
    for run in left:
        end_run(settings, run.info.run_id)


def metric_history(settings: Settings, run_id: str) -> dict[str, list[tuple[int, float, float]]]:
    """Metric -> its points as (step, value, unix time in seconds), by step; a repeated step keeps its last value."""
    client = tracker(settings).client
    history: dict[str, list[tuple[int, float, float]]] = {}
    for name in client.get_run(run_id).data.metrics:
        points = sorted(client.get_metric_history(run_id, name), key=lambda point: (point.step, point.timestamp))
        latest = {point.step: (point.step, point.value, point.timestamp / 1000) for point in points}
        history[name] = list(latest.values())
    return history


def list_runs(settings: Settings, recipe_name: str | None = None, *, limit: int = 1000) -> list[RunSummary]:
    """The runs, newest first; of one recipe when it is named."""
    client = tracker(settings).client
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    # Recipe names hold letters, digits and hyphens only, but this one may come from an address line.
    if recipe_name is not None and not recipe_name.replace("-", "").isalnum():
        return []
    wanted = f"tags.`sluice.recipe` = '{recipe_name}'" if recipe_name else ""
    found = client.search_runs([experiment.experiment_id], wanted, max_results=limit, order_by=["start_time DESC"])
    return list(_summaries(found))


def find_run(settings: Settings, run_id: str) -> RunSummary | None:
    """One run, or None when there is none of this id (which may come from an address line)."""
    from mlflow.exceptions import MlflowException

    try:
        found = tracker(settings).client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return next(iter(_summaries([found])))


def _summaries(found: Iterable[Any]) -> Iterable[RunSummary]:
    for run in found:
        tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
        yield RunSummary(
            run_id=run.info.run_id,
            name=run.info.run_name or run.info.run_id,
            recipe_name=tags.get("sluice.recipe", ""),
            stage=tags.get("sluice.stage", ""),
            status=str(run.info.status),
            started_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            ended_at=datetime.fromtimestamp(run.info.end_time / 1000, UTC) if run.info.end_time else None,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=tags,
        )
