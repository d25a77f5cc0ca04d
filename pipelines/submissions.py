"""Stages as Ray jobs: the same request is one job, and `sluice stop` ends it at a good moment."""

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cluster.connect import worker_environment
from cluster.errors import UserError
from cluster.jobs import Job, Jobs, jobs_address
from cluster.settings import Settings
from pipelines.fingerprint import fingerprint
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.records import SubmissionRow
from pipelines.section import nearest
from pipelines.stages import STAGES
from pipelines.tracking import submission_log
from pipelines.tracking.submission_log import Request, Submission
from pipelines.workspace import Workspace

MODULES = STAGES | {"run": "pipelines.run"}
"""What can be submitted: a stage, or the whole pipeline."""

STOPS_BY_ITSELF = ("sweep", "train", "run")
"""What looks for a stop: between its steps, or its stages; other stages end when they are ended."""

SUBMISSION_VARIABLE = "SLUICE_SUBMISSION_ID"
"""Names the submission inside its job."""


def submit_stage(
    stage: str, recipe_path: str | Path, overrides: list[str], workspace: Workspace, *, fresh: bool = False
) -> Submission:
    """Submit a stage as a Ray job, or return the job of the same request that is under way or has succeeded.

    `fresh` passes --fresh on, and repeats what has succeeded. Raises UserError when the recipe is wrong,
    the cluster is away, or it could not see what the stage needs.
    """
    from pipelines.recipe_file import load_recipe

    if stage not in MODULES:
        raise UserError(f"{stage!r} is no stage{nearest(stage, MODULES)}", f"The stages: {', '.join(MODULES)}.")
    recipe = load_recipe(recipe_path, overrides)
    return _submit(stage, recipe, command_words(stage, recipe_path, overrides), workspace, fresh)


def command_words(stage: str, recipe_path: str | Path, overrides: list[str]) -> list[str]:
    """The words of `sluice submit`, the recipe by its full name: they hold in any folder. Quote them for a shell."""
    return ["sluice", "submit", stage, str(Path(recipe_path).absolute()), *overrides]


def resume(workspace: Workspace, submission_id: str) -> Submission:
    """The same request again, without --fresh: a training goes on from its last checkpoint.

    Raises UserError when what was asked for is not on record, or as `submit_stage` does.
    """
    from pipelines.recipe_file import resolve

    row = submission_log.find(workspace, submission_id)
    if not row.content:
        raise UserError(
            f"{submission_id} was submitted by an earlier version, which did not record its recipe.",
            f"Ask for it again: `sluice submit {row.stage} RECIPE`.",
        )
    # As it was submitted, whatever has become of the file since.
    recipe = resolve(row.content["recipe"], f"The recipe of {submission_id}", Path("/"))
    return _submit(row.stage, recipe, row.content["command"], workspace, fresh=False)


def _submit(stage: str, recipe: Recipe, command: list[str], workspace: Workspace, fresh: bool) -> Submission:
    jobs = Jobs()
    check_shared(jobs, workspace.settings)
    key = request_key(stage, recipe, jobs.address)
    content = {"recipe": recipe.model_dump(mode="json"), "command": command}
    submission = submission_log.claim(workspace, jobs, Request(key, stage, recipe.name, fresh, content))
    if not submission.created:
        return submission
    try:
        _start(jobs, submission, recipe, workspace.settings, fresh)
    except BaseException:
        # Interrupted after Ray took it: then it runs, and stays in the table.
        if jobs.find(submission.submission_id) is None:
            submission_log.forget(workspace, submission.submission_id)
        raise
    return submission


def request_key(stage: str, recipe: Recipe, address: str) -> str:
    """What makes two requests the same: stage, resolved recipe, the content of data and benchmarks, the cluster."""
    from pipelines.data.leaks.benchmark_sets import benchmarks_fingerprint
    from pipelines.data.reading.read import dataset_fingerprint

    benchmarks = benchmarks_fingerprint(recipe.split.benchmarks)
    read = [dataset_fingerprint(recipe), *([benchmarks] if benchmarks else [])]
    return fingerprint(stage, recipe.model_dump(mode="json"), *read, address)


def check_shared(jobs: Jobs, settings: Settings) -> None:
    """Raise UserError when the cluster is elsewhere and storage or records lie in files of this machine."""
    places = {
        "SLUICE_STORAGE": settings.storage,
        "SLUICE_DATABASE": settings.database_url,
        "SLUICE_TRACKING": settings.tracking_uri,
    }
    local = [name for name, place in places.items() if "://" not in place or place.startswith(("sqlite", "file"))]
    if local and not jobs.is_here:
        raise UserError(
            f"The cluster at {jobs.address} is another machine, and {' and '.join(local)} would be on this one's disk.",
            "Set SLUICE_STORAGE to a bucket, SLUICE_DATABASE to a PostgreSQL URL and SLUICE_TRACKING to a server.",
        )


def follow(submission: Submission, workspace: Workspace, write: Callable[[str], None] | None = None) -> Submission:
    """Hand the job's log to `write` (standard error without one) until it has ended; how it ended."""
    jobs = Jobs(submission.address)
    _wait_for_start(jobs, submission, workspace)
    return _note(workspace, submission.submission_id, jobs.follow(submission.submission_id, write or _show))


def submissions(workspace: Workspace, *, limit: int = 100) -> list[Submission]:
    """What was submitted, newest first, with Ray's states; with the last known ones when the cluster is away."""
    rows = submission_log.newest(workspace, limit)
    if any(submission_log.may_change(row) and row.address == jobs_address() for row in rows):
        try:
            jobs = Jobs()
            known: dict[str, Job | None] = dict(jobs.list())
        except UserError:
            # Away: `seen_at` says how old the states are.
            pass
        else:
            submission_log.refresh(workspace, [row for row in rows if row.address == jobs.address], known)
    return [submission_log.as_submission(row) for row in rows]


def find_submission(workspace: Workspace, submission_id: str) -> Submission:
    """One submission as last known. Raises UserError that suggests the nearest id."""
    return submission_log.as_submission(submission_log.find(workspace, submission_id))


def present(workspace: Workspace, submission_id: str) -> Submission:
    """One submission as Ray tells it now. Raises UserError when there is none, or when the cluster is away."""
    row = submission_log.find(workspace, submission_id)
    if submission_log.may_change(row):
        submission_log.refresh(workspace, [row], {submission_id: Jobs(row.address).find(submission_id)})
    return submission_log.as_submission(row)


def job_log(submission: Submission, lines: int | None = None) -> str:
    """The last `lines` of what the job has said so far; all of it without a number.

    Raises UserError when its cluster is away or has forgotten the job.
    """
    return Jobs(submission.address).log(submission.submission_id, lines)


def ask_to_stop(workspace: Workspace, submission_id: str) -> None:
    """Ask a job to stop at its next step, after a checkpoint, however long that takes."""
    if submission_log.is_open(submission_log.find(workspace, submission_id)):
        submission_log.request_stop(workspace, submission_id)


def stop(workspace: Workspace, submission_id: str, grace_s: float = 60, progress: Progress | None = None) -> Submission:
    """Ask a job to stop at its next step, wait `grace_s` seconds for it, then end it.

    Ray kills a job three seconds after its stop signal, which is no time for a checkpoint: hence the asking.
    """
    progress = progress or Progress(quiet=True)
    submission = find_submission(workspace, submission_id)
    jobs = Jobs(submission.address)
    job = jobs.find(submission_id)
    if job is None or job.state.ended:
        return _note(workspace, submission_id, job)
    ask_to_stop(workspace, submission_id)
    progress.say(f"{submission_id}: asked to stop at its next step; it has {grace_s:g} s.")
    job = jobs.wait(submission_id, grace_s)
    if job is not None and not job.state.ended:
        progress.say(f"{submission_id}: still at work; ended now.")
        jobs.stop(submission_id)
        job = jobs.wait(submission_id, 30)
    return _note(workspace, submission_id, job)


def own_submission() -> str:
    """The submission whose job this process belongs to; empty outside of one."""
    return os.environ.get(SUBMISSION_VARIABLE, "")


def stop_requested(workspace: Workspace) -> bool:
    """Whether `sluice stop` was called on the job that this process belongs to; False outside of a job."""
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    submission_id = own_submission()
    if not submission_id:
        return False
    query = select(SubmissionRow.stop_requested_at).where(SubmissionRow.submission_id == submission_id)
    try:
        with workspace.session() as session:
            return session.scalar(query) is not None
    except (SQLAlchemyError, UserError):
        # A database that is away for a moment stops no training.
        return False


def job_environment(settings: Settings, submission_id: str, *, here: bool) -> dict[str, str]:
    """Environment of a job: our settings, without what only this machine has, and without secrets."""
    from pipelines.promote import promoter

    environment = worker_environment(settings)
    if not here:
        # A folder of this machine is none over there.
        environment.pop("SLUICE_MODELS", None)
    return environment | {SUBMISSION_VARIABLE: submission_id, "SLUICE_BY": promoter()}


def show_submissions(listed: list[Submission]) -> None:
    """The submissions for people, on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not listed:
        print("Nothing was submitted yet. `sluice submit STAGE RECIPE` does it.")
        return
    colours = {"succeeded": "green", "failed": "bold red", "lost": "red", "stopped": "yellow", "running": "cyan"}
    table = Table()
    # An id that is cut off is of no use to `sluice stop`; the stage and the attempt stand in it.
    table.add_column("submission", no_wrap=True)
    for column in ("recipe", "state", "exit", "seen"):
        table.add_column(column, overflow="fold")
    for each in listed:
        state = f"{each.state}, stop asked" if each.stop_requested_at and not each.state.ended else str(each.state)
        exit_code = "" if each.exit_code is None else str(each.exit_code)
        coloured = Text(state, style=colours.get(each.state, ""))
        table.add_row(Text(each.submission_id), each.recipe_name, coloured, exit_code, _age(each.seen_at))
    Console(highlight=False).print(table)


def _start(jobs: Jobs, submission: Submission, recipe: Recipe, settings: Settings, fresh: bool) -> None:
    from pipelines import job_folder

    options = ("--fresh",) if fresh else ()
    with tempfile.TemporaryDirectory(prefix="sluice-job-") as name:
        job_folder.fill(Path(name), recipe, shared_files=jobs.is_here)
        environment = job_environment(settings, submission.submission_id, here=jobs.is_here)
        jobs.submit(submission.submission_id, MODULES[submission.stage], Path(name), environment, options)


def _wait_for_start(jobs: Jobs, submission: Submission, workspace: Workspace) -> None:
    """Wait while another process packs and uploads it. Raises UserError when that one has given up."""
    deadline = submission.created_at + submission_log.STARTUP
    while not jobs.wait_until_known(submission.submission_id, 2) and datetime.now(UTC) < deadline:
        # A start that failed takes its row with it.
        submission_log.find(workspace, submission.submission_id)


def _note(workspace: Workspace, submission_id: str, job: Job | None) -> Submission:
    row = submission_log.find(workspace, submission_id)
    submission_log.refresh(workspace, [row], {submission_id: job})
    return submission_log.as_submission(row)


def _show(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _age(seen_at: datetime | None) -> str:
    if seen_at is None:
        return "never"
    minutes = (datetime.now(UTC) - seen_at).total_seconds() / 60
    return "now" if minutes < 1 else f"{minutes:.0f} min ago" if minutes < 60 else f"{minutes / 60:.0f} h ago"
