"""`sluice reports` and `sluice waive`: the evidence, and decisions about it."""

import json
from typing import Annotated

import typer

from cluster.errors import UserError
from pipelines.commands import show_report
from pipelines.fingerprint import short
from pipelines.gates import Report
from pipelines.workspace import Workspace

app = typer.Typer()
PANEL = "Evidence"


@app.command(rich_help_panel=PANEL)
def reports(
    key: Annotated[str | None, typer.Argument(help="First digits of a report's key: show that report.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only of the recipe with this name.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """List the stored reports, newest first, or show one."""
    if key:
        found = _one(key)
        if as_json:
            print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        else:
            show_report(found)
        return
    listed = Workspace().reports(stage=stage, recipe_name=recipe, limit=limit)
    if as_json:
        print(json.dumps([report.as_json() for report in listed], indent=2, ensure_ascii=False))
    else:
        _show_list(listed)


@app.command(rich_help_panel=PANEL)
def waive(
    recipe: Annotated[str, typer.Argument(help="Recipe file.")],
    gate: Annotated[str, typer.Argument(help="The closed gate, such as data.size.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Those that the stage ran with.")
    ] = None,
    because: Annotated[str, typer.Option(help="Why it may pass.")] = "",
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    until: Annotated[str | None, typer.Option(help="Last day of its validity (UTC), such as 2030-12-31.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the waiver alone, as JSON.")] = False,
) -> None:
    """Let a closed gate pass on the present inputs, on the record: who, why, until when."""
    from pipelines.recipe_file import load_recipe
    from pipelines.waive import end_of, waive

    waiver = waive(
        load_recipe(recipe, overrides or []),
        Workspace(),
        gate,
        by=by,
        because=because,
        until=end_of(until) if until else None,
    )
    if as_json:
        print(waiver.model_dump_json(indent=2))
        return
    ends = f"until {waiver.until:%Y-%m-%d %H:%M} UTC" if waiver.until else "without an end"
    print(f"{waiver.gate} is waived by {waiver.by} {ends}, for report {short(waiver.report)}: {waiver.because}")
    print("The waiver stays with the reports and the model for ever; other inputs need another one.")


def _one(key: str) -> Report:
    """The newest report whose key starts with `key`."""
    found = {report.key: report for report in reversed(Workspace().reports(limit=10_000)) if report.key.startswith(key)}
    if not found:
        raise UserError(f"No report's key starts with {key!r}.", "`sluice reports` lists them.")
    if len(found) > 1:
        raise UserError(f"{len(found)} reports' keys start with {key!r}.", "Give more digits.")
    return next(iter(found.values()))


def _show_list(listed: list[Report]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not listed:
        print("No reports yet. `sluice audit RECIPE` makes the first.")
        return
    table = Table("key", "recipe", "stage", "verdict", "when (UTC)", "closed gates")
    for report in listed:
        closed = ", ".join(gate.gate for gate in report.closed_gates)
        when = f"{report.created_at:%Y-%m-%d %H:%M}"
        table.add_row(short(report.key), report.recipe_name, report.stage, str(report.verdict), when, Text(closed))
    Console(highlight=False).print(table)
