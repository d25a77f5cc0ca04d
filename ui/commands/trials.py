"""`sluice trials`: the trials of a sweep, and what people ask of it while it goes on."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import EXIT_WRONG_REQUEST
from pipelines.markup import visible
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.recipe import Recipe as Loaded
    from pipelines.search.history import Action, History

app = typer.Typer(
    help="The trials of a sweep: list, stop, pause, resume, clone and add them, or give the sweep more to spend.",
    no_args_is_help=True,
)
Recipe = Annotated[str, typer.Argument(help="Recipe file.")]
Trial = Annotated[str, typer.Argument(help="Trial, as `sluice trials list` names it.")]
Values = Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Keys of train, as in learning_rate=2e-4.")]
Sweep = Annotated[str, typer.Option(help="Name of the sweep; without it, the recipe's newest.")]
By = Annotated[str, typer.Option(help="Who asks.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for the driver's answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]
WAIT_S = 30.0


@app.command("list")
def list_trials(recipe: Recipe, sweep: Sweep = "", as_json: AsJson = False) -> None:
    """List the trials: state, step, loss, values, what they took, and why they ended."""
    from pipelines.search.reading import leader, rows, spent, told

    _, history = _open(recipe, sweep)
    events, standing = history.events(), history.standing()
    listed, leading, taken = rows(standing), leader(standing), spent(standing, events)
    if as_json:
        trials = [asdict(row) for row in listed]
        return _print({"sweep": history.sweep, "closed": standing.closed, "spent": asdict(taken), "trials": trials})
    priced = any(row.cost is not None for row in listed)
    columns = ("trial", "state", "step", "loss", "values", "from", "seconds", *(("cost",) if priced else ()), "why")
    cells = []
    for row in listed:
        loss = "" if row.loss is None else f"{row.loss:.4f}{' *' if leading and row.trial == leading.trial else ''}"
        origin = f"{row.origin} of {row.parent}" if row.parent else row.origin
        origin += f", seed {row.seed}" if row.seed is not None else ""
        cost = (f"{row.cost or 0:.2f}",) if priced else ()
        shown = (row.trial, row.state, row.step, loss, told(row.values), origin, f"{row.seconds:.0f}", *cost)
        cells.append((*shown, row.because))
    _show(columns, cells)
    goes = f"over: {standing.closed}" if standing.closed else "open"
    budget = f" of {taken.max_hours:g}" if taken.max_hours is not None else ""
    leads = f"; {leading.trial} leads (*)" if leading else ""
    print(f"{history.sweep}, {goes}: {len(listed)} trials, {taken.hours:.2f}{budget} h{leads}.")


@app.command()
def stop(
    recipe: Recipe, trial: Trial, sweep: Sweep = "", by: By = "", wait: Wait = WAIT_S, as_json: AsJson = False
) -> None:
    """Stop a trial for good; what it has learnt counts."""
    _ask(recipe, sweep, "stop", trial, by, wait, as_json)


@app.command()
def pause(
    recipe: Recipe, trial: Trial, sweep: Sweep = "", by: By = "", wait: Wait = WAIT_S, as_json: AsJson = False
) -> None:
    """Let a trial wait after its present turn."""
    _ask(recipe, sweep, "pause", trial, by, wait, as_json)


@app.command()
def resume(
    recipe: Recipe, trial: Trial, sweep: Sweep = "", by: By = "", wait: Wait = WAIT_S, as_json: AsJson = False
) -> None:
    """Let a paused trial go on."""
    _ask(recipe, sweep, "resume", trial, by, wait, as_json)


@app.command()
def clone(
    recipe: Recipe,
    trial: Trial,
    values: Values,
    sweep: Sweep = "",
    by: By = "",
    wait: Wait = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Go on from a trial's weights with other values of some keys, as a trial of its own."""
    from pipelines.search.requests import read_values

    _ask(recipe, sweep, "clone", trial, by, wait, as_json, values=read_values(values))


@app.command()
def add(
    recipe: Recipe, values: Values, sweep: Sweep = "", by: By = "", wait: Wait = WAIT_S, as_json: AsJson = False
) -> None:
    """Try values of your own, from the base on."""
    from pipelines.search.requests import read_values

    _ask(recipe, sweep, "add", "", by, wait, as_json, values=read_values(values))


@app.command()
def extend(
    recipe: Recipe,
    trials: Annotated[int, typer.Option(min=0, help="Trials more.")] = 0,
    hours: Annotated[float, typer.Option(min=0, help="Hours of wall-clock more.")] = 0,
    cost: Annotated[float, typer.Option(min=0, help="More to spend, in the price's currency.")] = 0,
    sweep: Sweep = "",
    by: By = "",
    wait: Wait = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Give a sweep that goes on more trials, hours or money."""
    asked = {name: value for name, value in (("trials", trials), ("hours", hours), ("cost", cost)) if value}
    _ask(recipe, sweep, "extend", "", by, wait, as_json, **asked)


@app.command("history")
def show_history(recipe: Recipe, sweep: Sweep = "", as_json: AsJson = False) -> None:
    """Show what happened, one event a line, the oldest first."""
    from pipelines.search.lines import line

    _, history = _open(recipe, sweep)
    events = history.events()
    if as_json:
        return _print([asdict(event) for event in events])
    for event in events:
        print(visible(f"{event.id:>6}  {event.at:%Y-%m-%d %H:%M:%S}  {event.trial or '-':<10}  {line(event)}"))


def _open(recipe: str, sweep: str) -> "tuple[Loaded, History]":
    from pipelines.recipe_file import load_recipe
    from pipelines.search.history import open_history

    loaded = load_recipe(recipe, [])
    return loaded, open_history(Workspace(), loaded.name, sweep)


def _ask(
    recipe: str, sweep: str, action: "Action", trial: str, by: str, wait: float, as_json: bool, **content: Any
) -> None:
    from pipelines.search.requests import ask, wait_for_answer

    loaded, history = _open(recipe, sweep)
    number = ask(history, action, trial, by=by, train=loaded.train, **content)
    request = wait_for_answer(history, number, wait)
    if as_json:
        told = {"request": number, "answered": request.answer is not None, "problem": request.answer or ""}
        _print(told | {"trial": request.made or trial, "sentence": request.sentence})
    else:
        print(visible(request.sentence))
        if request.answer is None:
            print(
                f"Request {number} stays in the history: the sweep does it when it goes on (`sluice sweep {recipe}`)."
            )
    if request.answer:
        raise typer.Exit(EXIT_WRONG_REQUEST)


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _show(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("trial", "state"))
    for row in rows:
        # As text: values may hold what a terminal or rich would act on.
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(highlight=False).print(table)
