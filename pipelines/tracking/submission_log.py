"""The table of submissions: an attempt each, and what Ray last told of it.

The table decides what is under way, not Ray: of two processes that submit at once, the one whose row is taken
by the unique constraint on (request, attempt) starts the job, and the other follows it.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cluster.errors import UserError
from cluster.jobs import Job, Jobs, JobState
from pipelines.fingerprint import short
from pipelines.records import SubmissionRow, now
from pipelines.section import nearest
from pipelines.workspace import Workspace

STARTUP = timedelta(minutes=15)
"""A submission that Ray does not know after this long was never started: its process died.

Well above what packing and uploading the data takes on a slow line: until then the same request waits for it.
"""


@dataclass(frozen=True)
class Submission:
    """A stage that was submitted."""

    submission_id: str
    stage: str
    recipe_name: str
    attempt: int
    address: str
    """Of the cluster that it went to."""
    state: JobState
    exit_code: int | None
    """The stage's own exit code, once it has ended by itself."""
    created_at: datetime
    stop_requested_at: datetime | None
    seen_at: datetime | None
    """When Ray last told the state."""
    command: tuple[str, ...] = ()
    """The words of the command line that asks for it; empty where an earlier version submitted it."""
    created: bool = False
    """Whether this very request started it; False when it had been submitted before."""

    @property
    def outcome(self) -> int:
        """The exit code to return for it: the stage's own, or a failure's when it has none."""
        if self.exit_code is not None:
            return self.exit_code
        return 0 if self.state is JobState.SUCCEEDED else 1


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    key: str
    """Fingerprint of all that makes two requests the same."""
    stage: str
    recipe_name: str
    fresh: bool
    """Whether a job that succeeded is repeated."""
    content: dict[str, Any] | None = None
    """The resolved recipe and the command line: see `SubmissionRow.content`."""


def claim(workspace: Workspace, jobs: Jobs, request: Request) -> Submission:
    """The submission that a request comes to; `created` when it is the caller's to start."""
    from sqlalchemy import select
    from sqlalchemy.exc import IntegrityError

    query = select(SubmissionRow).where(SubmissionRow.idempotency_key == request.key)
    while True:
        with workspace.session() as session:
            latest = session.scalar(query.order_by(SubmissionRow.attempt.desc()).limit(1))
        if latest is not None:
            if may_change(latest):
                refresh(workspace, [latest], {latest.submission_id: jobs.find(latest.submission_id)})
            state = _state(latest)
            if not state.ended or (state is JobState.SUCCEEDED and not request.fresh):
                return as_submission(latest)
        attempt = latest.attempt + 1 if latest else 1
        row = SubmissionRow(
            idempotency_key=request.key,
            attempt=attempt,
            # Ray refuses an id that was ever used; the last part keeps apart workspaces that share a cluster.
            submission_id=f"sluice-{request.stage}-{short(request.key)}-{attempt}-{secrets.token_hex(2)}",
            address=jobs.address,
            stage=request.stage,
            recipe_name=request.recipe_name,
            state=str(JobState.SUBMITTING),
            content=request.content,
        )
        try:
            with workspace.session() as session:
                session.add(row)
        except IntegrityError:
            # Another process took this attempt in between: look again.
            continue
        return as_submission(row, created=True)


def newest(workspace: Workspace, limit: int) -> list[SubmissionRow]:
    """Rows, newest first."""
    from sqlalchemy import select

    with workspace.session() as session:
        return list(session.scalars(select(SubmissionRow).order_by(SubmissionRow.id.desc()).limit(limit)))


def look_up(workspace: Workspace, submission_id: str) -> SubmissionRow | None:
    """One row, or None."""
    from sqlalchemy import select

    with workspace.session() as session:
        return session.scalar(select(SubmissionRow).where(SubmissionRow.submission_id == submission_id))


def find(workspace: Workspace, submission_id: str) -> SubmissionRow:
    """One row. Raises UserError that suggests the nearest id."""
    row = look_up(workspace, submission_id)
    if row is None:
        known = [each.submission_id for each in newest(workspace, 1000)]
        raise UserError(
            f"There is no submission {submission_id!r}{nearest(submission_id, known)}", "`sluice jobs` lists them."
        )
    return row


def is_open(row: SubmissionRow) -> bool:
    """Whether something may still come of it."""
    return not _state(row).ended


def may_change(row: SubmissionRow) -> bool:
    """Whether Ray may tell something new of it: a lost one may have been slow to start."""
    return is_open(row) or _state(row) is JobState.LOST


def refresh(workspace: Workspace, rows: list[SubmissionRow], known: dict[str, Job | None]) -> None:
    """Bring those of `rows` that may change to what Ray tells now, in the table too."""
    from sqlalchemy import update

    with workspace.session() as session:
        for row in rows:
            if not may_change(row):
                continue
            job = known.get(row.submission_id)
            if job is not None and job.state is not JobState.LOST:
                # A stage that ends because it was asked to has failed in Ray's eyes, and was stopped in ours.
                stopped = job.state is JobState.FAILED and row.stop_requested_at is not None
                row.state, row.exit_code = str(JobState.STOPPED if stopped else job.state), job.exit_code
            elif _state(row) is JobState.LOST:
                continue
            elif _state(row) is not JobState.SUBMITTING or now() - row.created_at > STARTUP:
                row.state = str(JobState.LOST)
            row.seen_at = now()
            told = {"state": row.state, "exit_code": row.exit_code, "seen_at": row.seen_at}
            session.execute(update(SubmissionRow).where(SubmissionRow.id == row.id).values(**told))


def forget(workspace: Workspace, submission_id: str) -> None:
    """Free an attempt that was never started."""
    from sqlalchemy import delete

    with workspace.session() as session:
        session.execute(delete(SubmissionRow).where(SubmissionRow.submission_id == submission_id))


def request_stop(workspace: Workspace, submission_id: str) -> None:
    """Set the flag that the stage reads at step boundaries."""
    from sqlalchemy import update

    with workspace.session() as session:
        statement = update(SubmissionRow).where(SubmissionRow.submission_id == submission_id)
        session.execute(statement.values(stop_requested_at=now()))


def as_submission(row: SubmissionRow, *, created: bool = False) -> Submission:
    """A row as it is shown."""
    return Submission(
        submission_id=row.submission_id,
        stage=row.stage,
        recipe_name=row.recipe_name,
        attempt=row.attempt,
        address=row.address,
        state=_state(row),
        exit_code=row.exit_code,
        created_at=row.created_at,
        stop_requested_at=row.stop_requested_at,
        seen_at=row.seen_at,
        command=tuple((row.content or {}).get("command", ())),
        created=created,
    )


def _state(row: SubmissionRow) -> JobState:
    return JobState(row.state or JobState.SUBMITTING)
