"""Running a stage from a command line: arguments, output, exit code.

`sluice STAGE`, `python -m pipelines.STAGE` and Ray jobs all come through here.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluster.connect import prepare_environment
from cluster.errors import UserError
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.stage import Stage

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_REQUEST, EXIT_GATE_CLOSED = 0, 1, 2, 3


def run_stage(stage: "Stage", arguments: list[str]) -> int:
    """Perform `stage` as the arguments say; prints its report and returns the exit code."""
    from pipelines.dry_run import dry_run
    from pipelines.recipe_file import load_recipe

    parser = argparse.ArgumentParser(prog=f"sluice {stage.name}", description=stage.summary)
    parser.add_argument("recipe", help="recipe file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in train.learning_rate=2e-4")
    parser.add_argument("--json", action="store_true", help="print the report alone, as JSON")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--fresh", action="store_true", help="do the work again, whatever was stored")
    begin.add_argument("--resume", action="store_true", help="go on from what is stored, as without it; no --fresh")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and the plan, and stop")
    options = parser.parse_intermixed_args(arguments)
    prepare_environment()
    with user_errors(options.json) as outcome:
        with own_standard_output(options.json):
            recipe = load_recipe(*in_order([options.recipe, *options.overrides]))
            workspace = Workspace()
            progress = Progress()
            if options.dry_run:
                report = None
                text = dry_run(stage, recipe, workspace)
            else:
                report = stage.perform(recipe, workspace, progress, fresh=options.fresh)
                text = json.dumps(report.as_json(), indent=2, ensure_ascii=False) if options.json else ""
        if text:
            print(text)
        elif report is not None:
            show_report(report)
        if report is not None and report.verdict is Verdict.CLOSED:
            outcome.code = EXIT_GATE_CLOSED
    return outcome.code


def in_order(positionals: list[str]) -> tuple[str, list[str]]:
    """The recipe and the overrides, wherever they stand: the recipe is the first that is a file or holds no `=`."""
    recipe = next((each for each in positionals if "=" not in each or os.path.isfile(each)), positionals[0])
    overrides = list(positionals)
    overrides.remove(recipe)
    return recipe, overrides


class ExitCode:
    """What the process will exit with."""

    code = EXIT_DONE


@contextlib.contextmanager
def user_errors(as_json: bool = False) -> Iterator[ExitCode]:
    """A person's mistake inside becomes a sentence on standard error and an exit code, never a traceback."""
    outcome = ExitCode()
    try:
        yield outcome
    except UserError as error:
        outcome.code = error.exit_code
        print(f"sluice: {error}", file=sys.stderr)
        if as_json:
            print(json.dumps({"verdict": "error", "message": error.message, "remedy": error.remedy}))


@contextlib.contextmanager
def own_standard_output(wanted: bool) -> Iterator[None]:
    """Keep standard output for the report: what libraries and workers print goes to standard error."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def show_report(report: Report) -> None:
    """A report for people: gates with evidence, findings with remedies, on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipelines.markup import visible

    console = Console(highlight=False)
    colours = {"open": "green", "closed": "bold red", "waived": "yellow", "not_applicable": "dim"}
    table = Table(title=f"{report.stage} of {report.recipe_name}: {report.verdict}", title_justify="left")
    for column in ("gate", "verdict", "evidence"):
        table.add_column(column, overflow="fold")
    for gate in report.gates:
        table.add_row(gate.gate, Text(str(gate.verdict), style=colours[gate.verdict]), Text(visible(gate.evidence)))
    if report.gates:
        console.print(table)
    for finding in report.findings:
        colour = {"error": "red", "warning": "yellow", "info": "dim"}[finding.severity]
        console.print(
            Text(f"{finding.severity:>7}  ", style=colour) + Text(visible(f"{finding.code}: {finding.message}"))
        )
        for sample in finding.samples[:2]:
            shown = visible(json.dumps(sample, ensure_ascii=False))
            console.print(Text(f"         {shown[:160]}{'...' if len(shown) > 160 else ''}", style="dim"))
        if finding.severity != "info":
            console.print(Text(f"         -> {visible(finding.remedy)}"))
