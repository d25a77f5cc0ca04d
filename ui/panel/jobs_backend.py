"""What the panel reads of jobs, and what people do with them: submit, stop, end, resume."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cluster.errors import UserError
from cluster.jobs import JobState
from pipelines import submissions
from pipelines.tracking import submission_log
from ui.panel import backend
from ui.panel.last_known import Known, problem_of

if TYPE_CHECKING:
    from pipelines.tracking.runs import RunSummary
    from pipelines.tracking.submission_log import Submission

T = TypeVar("T")


def job(submission_id: str) -> "Known[Submission | None]":
    """A job as Ray tells it, or as it last told; the value is None when it was never submitted here."""

    def stored() -> "Submission | None":
        row = submission_log.look_up(backend.workspace(), submission_id)
        return submission_log.as_submission(row) if row else None

    recorded = backend.from_database(("submission", submission_id), stored)
    if recorded.value is None or recorded.problem:
        return recorded
    seen: Known[Submission] = backend.known.read(
        ("job", backend.workspace().settings, submission_id),
        "Ray",
        backend.RAY_REMEDY,
        lambda: submissions.present(backend.workspace(), submission_id),
    )
    # A stop that was asked for a moment ago stands in the table, whatever Ray says.
    return Known(recorded.value, recorded.value.seen_at, seen.problem) if seen.problem else Known(seen.value, None)


def log(job: "Submission", lines: int | None = None) -> Known[str]:
    """The end of the job's log, or all of it; nothing while the job is on its way to Ray."""
    if job.state is JobState.SUBMITTING:
        return Known("", None)
    key = ("log", backend.workspace().settings, job.submission_id, lines)
    return backend.known.read(key, "The log", backend.RAY_REMEDY, lambda: submissions.job_log(job, lines))


def whole_log(job: "Submission") -> str:
    """All of the log, for a download; the reason where it cannot be had."""
    try:
        return submissions.job_log(job)
    except UserError as error:
        return str(error)


def run_of(job: "Submission") -> "RunSummary | None":
    """The tracked run that the job is at, or was at last: one that was resumed belongs to the later job."""
    listed = backend.runs(job.recipe_name, deadline_s=1).value or []
    return next((run for run in listed if run.tags.get("sluice.submission") == job.submission_id), None)


def submit(stage: str, recipe: Path, overrides: list[str]) -> "Known[Submission]":
    """Submit a stage, as `sluice submit` does."""
    return _done(lambda: submissions.submit_stage(stage, recipe, overrides, backend.workspace()))


def ask_to_stop(submission_id: str) -> Known[None]:
    """Ask the job to stop after a checkpoint."""
    return _done(lambda: submissions.ask_to_stop(backend.workspace(), submission_id))


def end_now(submission_id: str) -> "Known[Submission]":
    """End the job at once."""
    return _done(lambda: submissions.stop(backend.workspace(), submission_id, grace_s=0))


def resume(submission_id: str) -> "Known[Submission]":
    """The same command again."""
    return _done(lambda: submissions.resume(backend.workspace(), submission_id))


def _done(act: Callable[[], T]) -> Known[T]:
    try:
        return Known(act(), None)
    except Exception as error:
        # Whatever went wrong is a sentence on the page.
        return Known(None, None, problem_of(error, "Ray", backend.RAY_REMEDY))
