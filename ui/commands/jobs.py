"""`sluice submit`, `sluice jobs` and `sluice stop`: stages as jobs on a Ray cluster."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.progress import Progress
from pipelines.workspace import Workspace

app = typer.Typer()
PANEL = "Cluster"
JSON = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]


@app.command(rich_help_panel=PANEL)
def submit(
    stage: Annotated[str, typer.Argument(help="Stage, or run for the whole pipeline.")],
    recipe: Annotated[str, typer.Argument(help="Recipe file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do the work again, whatever was stored.")] = False,
    follow: Annotated[bool, typer.Option(help="Show the job's log until it has ended, and exit as it does.")] = True,
    as_json: JSON = False,
) -> None:
    """Run a stage as a Ray job (RAY_ADDRESS); the same request twice is one job."""
    from pipelines import submissions

    workspace, progress = Workspace(), Progress()
    submission = submissions.submit_stage(stage, recipe, overrides or [], workspace, fresh=fresh)
    done = "submitted" if submission.created else f"submitted before, {submission.state}"
    progress.say(f"{submission.submission_id}: {done} (attempt {submission.attempt})")
    if follow and not submission.state.ended:
        progress.say(f"Ctrl-C leaves the job running; `sluice stop {submission.submission_id}` ends it.")
        submission = submissions.follow(submission, workspace)
    if as_json:
        print(json.dumps(asdict(submission), indent=2, default=str))
    else:
        print(f"{submission.submission_id} {submission.state}")
    raise typer.Exit(submission.outcome if submission.state.ended else 0)


@app.command(rich_help_panel=PANEL)
def jobs(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the newest.")] = 20,
    as_json: JSON = False,
) -> None:
    """List what was submitted, newest first."""
    from pipelines import submissions

    listed = submissions.submissions(Workspace(), limit=limit)
    if as_json:
        print(json.dumps([asdict(each) for each in listed], indent=2, default=str))
    else:
        submissions.show_submissions(listed)


@app.command(rich_help_panel=PANEL)
def stop(
    submission: Annotated[str, typer.Argument(help="Submission, as `sluice jobs` lists it.")],
    grace: Annotated[float, typer.Option(min=0, help="Seconds for the step under way and its checkpoint.")] = 60,
    as_json: JSON = False,
) -> None:
    """Ask a job to stop at its next step; end it when the grace is over."""
    from pipelines import submissions

    stopped = submissions.stop(Workspace(), submission, grace_s=grace, progress=Progress())
    if as_json:
        print(json.dumps(asdict(stopped), indent=2, default=str))
    else:
        print(f"{stopped.submission_id} {stopped.state}")
