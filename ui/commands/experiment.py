"""`sluice experiment`: candidates on live traffic, from the plan to the promotion."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.markup import visible
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.recipe import Recipe as Loaded
    from serve.experimentation.watcher import Seen

app = typer.Typer(
    help="Candidates on live traffic: plan, start, watch, pause, promote and stop an experiment.", no_args_is_help=True
)
Recipe = Annotated[str, typer.Argument(help="Recipe file with a section `experiment`.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As in experiment.coverage=0.5.")]
By = Annotated[str, typer.Option(help="Who decides; without it, SLUICE_BY or the user of this process.")]
Because = Annotated[str, typer.Option(help="Why.")]
Number = Annotated[int | None, typer.Option("--experiment", help="Its number; without it, the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    units_per_day: Annotated[
        float | None, typer.Option(min=0.001, help="New users a day; without it, what the service saw in 14 days.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Reckon units, power and days, before anything starts."""
    from serve.experimentation.design import check_can_end, days_for, size_of
    from serve.experimentation.reading import new_units_per_day

    loaded = _load(recipe, overrides)
    section = _section(loaded)
    size = size_of(section)
    check_can_end(section, size.planned)
    seen = new_units_per_day(Workspace(), loaded.name) if units_per_day is None else units_per_day
    days = days_for(section, size, seen) if seen else None
    if as_json:
        return _print(asdict(size) | {"units_per_day": seen, "days": days})
    print(f"{section.treated} against {section.control} on {section.primary.metric}: {size.planned:,} units planned.")
    if size.power is not None:
        print(
            f"Power {size.power:.0%} for the difference of {section.effect.difference:g}; "
            f"if it is there, it ends after {size.expected:,} units on average. One test at the end takes "
            f"{size.fixed:,}, and may be looked at once."
        )
    if days is None:
        print("No traffic is known yet: give --units-per-day for the days it takes.")
    else:
        print(f"{days} days at {seen:,.1f} new users a day and coverage {section.coverage:.0%}.")


@app.command()
def start(recipe: Recipe, overrides: Overrides = None, by: By = "", as_json: AsJson = False) -> None:
    """Start the experiment that the recipe describes; the service follows within ten seconds."""
    from serve.experimentation import lifecycle

    loaded = _load(recipe, overrides)
    row = lifecycle.start(Workspace(), loaded, by or _decider())
    if as_json:
        return _print({"experiment": row.id, "planned": row.planned, "coverage": row.coverage})
    print(f"Experiment {row.id} of {row.recipe_name} runs: {row.planned:,} units planned, {row.coverage:.0%} covered.")
    print(f"`sluice experiment status {recipe}` shows it; the watcher beside `sluice serve` ends it.")


@app.command()
def status(recipe: Recipe, number: Number = None, as_json: AsJson = False) -> None:
    """Show what an experiment says so far: one verdict, intervals, guardrails, the sample ratio."""
    from serve.experimentation.reading import standing

    found = standing(Workspace(), _load(recipe).name, number)
    if as_json:
        return _print(found)
    _tell(found)


@app.command("list")
def list_experiments(recipe: Recipe, as_json: AsJson = False) -> None:
    """List the experiments that there were."""
    from serve.experimentation import lifecycle
    from serve.experimentation.reading import summary

    loaded = _load(recipe)
    rows = [summary(row) for row in lifecycle.listed(Workspace(), loaded.name)]
    if as_json:
        return _print(rows)
    if not rows:
        print(f"{loaded.name} has had no experiment. `sluice experiment start {recipe}` starts one.")
        return
    columns = ("experiment", "state", "outcome", "primary", "version", "planned", "started", "ended", "by")
    _table(columns, [[_cell(row[column]) for column in columns] for row in rows])


@app.command()
def history(recipe: Recipe, number: Number = None, as_json: AsJson = False) -> None:
    """Show what happened in an experiment: starts, pauses, coverages, looks, its end."""
    from serve.experimentation import lifecycle

    workspace = Workspace()
    row = lifecycle.latest(workspace, _load(recipe).name, number)
    events = lifecycle.events_of(workspace, row.id)
    if as_json:
        told = [{"at": one.created_at, "action": one.action, "by": one.by, "content": one.content} for one in events]
        return _print(told)
    from serve.experimentation.reading import sentence_of

    cells = [[f"{one.created_at:%Y-%m-%d %H:%M:%S}", one.action, one.by, sentence_of(one)] for one in events]
    _table(("at (UTC)", "what", "by", ""), cells)


@app.command()
def pause(recipe: Recipe, because: Because = "", by: By = "") -> None:
    """Let nobody new in; who is in stays with their arm."""
    from serve.experimentation import lifecycle

    row = lifecycle.pause(Workspace(), _load(recipe).name, by or _decider(), because)
    print(f"Experiment {row.id} is paused.")


@app.command()
def resume(recipe: Recipe, because: Because = "", by: By = "") -> None:
    """Let new users in again."""
    from serve.experimentation import lifecycle

    row = lifecycle.resume(Workspace(), _load(recipe).name, by or _decider(), because)
    print(f"Experiment {row.id} runs again.")


@app.command()
def cover(
    recipe: Recipe,
    coverage: Annotated[float, typer.Argument(help="Share of all users to take in from now on, as in 0.5.")],
    because: Because = "",
    by: By = "",
) -> None:
    """Take in a larger share of the users; nobody who is in moves."""
    from cluster.errors import UserError
    from serve.experimentation import lifecycle

    workspace, name = Workspace(), _load(recipe).name
    row = lifecycle.latest(workspace, name)
    if not lifecycle.cover(workspace, row, coverage, by or _decider(), because):
        raise UserError(
            f"Experiment {row.id} covers {row.coverage:.0%} and is {row.state}.", "A coverage can only grow."
        )
    print(f"Experiment {row.id} covers {coverage:.0%} of the users.")


@app.command()
def promote(recipe: Recipe, because: Because = "", by: By = "") -> None:
    """Send everyone to the tried arm. Closed (exit code 3) while it is not better, unless --because says why."""
    from pipelines.tracking.deployments import follow_alias
    from serve.experimentation import lifecycle

    workspace, name = Workspace(), _load(recipe).name
    row = lifecycle.promote(workspace, name, by or _decider(), because)
    follow_alias(workspace, name)
    print(f"{name}: {_traffic(row.content)} from now on (deployment {row.id}, by {row.by}).")


@app.command()
def stop(recipe: Recipe, because: Because = "", by: By = "") -> None:
    """End the experiment without a verdict; the control serves everyone."""
    from pipelines.tracking.deployments import follow_alias
    from serve.experimentation import lifecycle

    workspace, name = Workspace(), _load(recipe).name
    switched = lifecycle.stop(workspace, name, by or _decider(), because)
    follow_alias(workspace, name)
    stays = "the newer deployment stays in production"
    print(f"{name}: its experiment is stopped; {stays if switched is None else _traffic(switched.content)}.")


@app.command()
def watch(
    recipe: Recipe,
    once: Annotated[bool, typer.Option("--once", help="Look once, do what follows, and end.")] = False,
    every_s: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 5,
) -> None:
    """Watch in this process, as the actor beside `sluice serve` does: verdicts, ramp, rollback; until Ctrl-C."""
    import time

    from cluster.errors import UserError
    from pipelines.tracking.deployments import follow_alias
    from serve.experimentation.watcher import watch_once

    workspace, name = Workspace(), _load(recipe).name
    told: list[str] = []
    while True:
        lines = []
        for step in (lambda: _watched(watch_once(workspace, name), name), lambda: follow_alias(workspace, name)):
            try:
                lines += [step() or ""]
            except Exception as error:
                # The database or the registry is away: who watches goes on. What the log says holds meanwhile.
                if once and not isinstance(error, UserError):
                    raise
                lines.append(error.message if isinstance(error, UserError) else f"{type(error).__name__}; trying again")
        for line in (line for line in lines if line and line not in told):
            print(visible(line), flush=True)
        told = lines
        if once:
            return
        time.sleep(every_s)


@app.command("import")
def import_file(
    recipe: Recipe,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, or CSV with a header (.csv).")],
    as_json: AsJson = False,
) -> None:
    """Store business events from a file; again, and only what is missing is stored."""
    from serve.event_files import import_events

    done = import_events(Workspace(), _load(recipe).name, path)
    if as_json:
        return _print(asdict(done))
    print(f"{done.stored:,} events stored, {done.known:,} were there already.")


def _watched(seen: "Seen | None", name: str) -> str:
    return f"{name} has no experiment that runs." if seen is None else seen.did or str(seen.evidence["sentence"])


def _tell(found: dict[str, Any]) -> None:
    from serve.experimentation.evidence import counted, how_counted

    about, seen = found["experiment"], found["look"]
    state = about["state"] + (f" ({about['outcome']})" if about["outcome"] else "")
    print(f"Experiment {about['experiment']} of {about['recipe']}, {state}: {visible(seen['sentence'])}.")
    units = ", ".join(f"{arm} {count:,}" for arm, count in sorted(counted(seen).items())) or "none yet"
    waiting = sum(seen["exposures"].values()) - sum(counted(seen).values())
    further = f" and {waiting:,} that do not count yet, or came too late" if waiting else ""
    print(f"Units: {units}{further}; {about['planned']:,} planned; {about['coverage']:.0%} covered.")
    ratio = seen["sample_ratio"]
    print(f"Sample ratio: {visible(ratio['sentence'])}.")
    cells = []
    for metric in seen["metrics"]:
        ends = "too little is in" if metric["low"] is None else f"[{metric['low']:+.4g}, {metric['high']:+.4g}]"
        means = {arm: f"{mean:.4g}" for arm, mean in metric["means"].items()}
        role = "primary" if metric["primary"] else metric["guard"]
        name, p = metric["metric"], f"{metric['p']:.2g}"
        control, treated = means.get(about["control"], ""), means.get(about["treated"], "")
        cells.append([name, role, control, treated, f"{metric['difference']:+.4g}", ends, p, f"{metric['margin']:g}"])
    _table(("metric", "", about["control"], about["treated"], "difference", "interval", "p", "margin"), cells)
    if told := how_counted(about, seen):
        print(f"{visible(told)}.")
    for metric, count in seen["set_aside"].items():
        print(f"{metric}: {count:,} events are of users who were in no arm when they happened; they do not count.")
    if about["state"] != "ended" and not about["watched"]:
        print("Nobody watches it: start `sluice serve RECIPE`, or `sluice experiment watch RECIPE`.")


def _traffic(content: dict[str, Any]) -> str:
    from serve.experimentation.lifecycle import shares

    return shares(content["traffic"])


def _load(recipe: str, overrides: list[str] | None = None) -> "Loaded":
    from pipelines.recipe_file import load_recipe

    return load_recipe(recipe, overrides or [])


def _section(recipe: "Loaded") -> Any:
    from serve.experimentation.lifecycle import described

    return described(recipe)


def _decider() -> str:
    from pipelines.promote import promoter

    return promoter()


def _cell(value: object) -> str:
    from datetime import datetime

    return "" if value is None else f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As text: a name may hold what rich would act on.
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(highlight=False).print(table)
