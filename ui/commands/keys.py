"""`sluice keys`: who may ask the service."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.markup import visible
from pipelines.progress import Progress
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.recipe import Recipe as Loaded
    from pipelines.records import ApiKeyRow
    from serve.keys import MadeKey

app = typer.Typer(
    help="Keys of a recipe's service (serve.keys: required): add, list, rotate and revoke them.", no_args_is_help=True
)
Recipe = Annotated[str, typer.Argument(help="Recipe file.")]
Name = Annotated[str, typer.Argument(help="Who or what uses the key.")]
Days = Annotated[float | None, typer.Option(min=0.01, max=36_500, help="Days after which it no longer counts.")]
By = Annotated[str, typer.Option(help="Who makes it; without it, SLUICE_BY or the user of this process.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]


@app.command()
def add(
    recipe: Recipe,
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may ask for, once for each: chat, feedback, events, models, metrics. [all but metrics]"
        ),
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Requests per minute that it may make.")
    ] = None,
    expires_days: Days = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    from serve import keys

    loaded = _load(recipe)
    made = keys.add(
        Workspace(),
        loaded.name,
        name,
        by=by or _maker(),
        scopes=scope or keys.USUAL_SCOPES,
        per_minute=per_minute,
        expires_days=expires_days,
    )
    _hand_over(made, loaded, as_json)


@app.command("list")
def list_keys(recipe: Recipe, as_json: AsJson = False) -> None:
    """List the keys that there ever were: what each may do, and whether it counts."""
    from serve import keys

    loaded = _load(recipe)
    rows = keys.listed(Workspace(), loaded.name)
    if as_json:
        return _print([_told(row) for row in rows])
    if not rows:
        print(f"{loaded.name} has no keys yet. `sluice keys add RECIPE NAME` makes one.")
        return
    _show(rows)


@app.command()
def rotate(
    recipe: Recipe,
    name: Name,
    grace_hours: Annotated[
        float, typer.Option(min=0, max=8760, help="Hours for which the old key counts beside the new one.")
    ] = 24,
    expires_days: Days = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make a key in place of another, with its scopes and rate, and print it, this once."""
    from serve import keys

    loaded, workspace = _load(recipe), Workspace()
    made = keys.rotate(
        workspace, loaded.name, name, by=by or _maker(), grace_hours=grace_hours, expires_days=expires_days
    )
    _hand_over(made, loaded, as_json)
    _say(f"The old key counts for at most {grace_hours:g} h more." if grace_hours else "The old key no longer counts.")


@app.command()
def revoke(
    recipe: Recipe,
    name: Annotated[str, typer.Argument(help="The key's name, or its first characters as the list shows them.")],
    as_json: AsJson = False,
) -> None:
    """End a key; a gateway that runs knows within ten seconds."""
    from serve import keys

    loaded = _load(recipe)
    ended = keys.revoke(Workspace(), loaded.name, name)
    if as_json:
        return _print([_told(row) for row in ended])
    for row in ended:
        print(visible(f"{row.name} ({row.prefix}...) is revoked; a gateway that runs knows within 10 s."))


def _load(recipe: str) -> "Loaded":
    from pipelines.recipe_file import load_recipe

    return load_recipe(recipe, [])


def _maker() -> str:
    from pipelines.promote import promoter

    return promoter()


def _hand_over(made: "MadeKey", recipe: "Loaded", as_json: bool) -> None:
    """The key alone on standard output, so that a script can take it; what there is to say of it beside."""
    row = made.row
    if as_json:
        _print({"key": made.key} | _told(row))
    else:
        print(made.key)
    limit = f"{row.per_minute} requests a minute" if row.per_minute else "any number of requests"
    until = f"until {_moment(row.expires_at)} UTC" if row.expires_at else "without an end"
    _say(f"The key of {row.name}: {row.scopes.replace(' ', ', ')}; {limit}; {until}.")
    _say("It is shown this once. Clients send it as Authorization: Bearer KEY, ours from SLUICE_API_KEY.")
    if recipe.serve.keys == "off":
        _say(f"{recipe.name} asks for no keys yet: set serve.keys to required and restart `sluice serve`.")


def _say(text: str) -> None:
    Progress().say(visible(text))


def _told(row: "ApiKeyRow") -> dict[str, Any]:
    """A key for scripts: nothing of it but its first characters."""
    from serve.keys import state

    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "state": state(row, datetime.now(UTC)),
        "scopes": row.scopes.split(),
        "per_minute": row.per_minute,
        "by": row.by,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _show(rows: "list[ApiKeyRow]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from serve.keys import state

    table, now = Table(), datetime.now(UTC)
    for column in ("name", "key", "state", "may", "per minute", "by", "made (UTC)", "ends (UTC)"):
        table.add_column(column, overflow="fold", no_wrap=column in ("key", "state"))
    for row in rows:
        ends = min((at for at in (row.expires_at, row.revoked_at) if at is not None), default=None)
        cells = (
            row.name,
            f"{row.prefix}...",
            state(row, now),
            row.scopes.replace(" ", ", "),
            "" if row.per_minute is None else str(row.per_minute),
            row.by,
            _moment(row.created_at),
            _moment(ends),
        )
        # As text: a name may hold what rich would act on.
        table.add_row(*(Text(visible(cell)) for cell in cells))
    Console(highlight=False).print(table)
