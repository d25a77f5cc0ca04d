"""`sluice data`: versions of a split, what was fitted to them, what was kept aside, reviews of suspect examples."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import UserError
from pipelines.commands import EXIT_FAILED
from pipelines.markup import visible
from pipelines.progress import Progress
from pipelines.workspace import Workspace

app = typer.Typer(
    help="Versions of a split, what learnt from them, rows kept aside, and reviews of suspect examples.",
    no_args_is_help=True,
)
Recipe = Annotated[str, typer.Argument(help="Recipe file.")]
Limit = Annotated[int, typer.Option(min=0, max=100_000, help="At most this many rows.")]
Side = Annotated[str | None, typer.Option(help="Only of train, validation, test or held_out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]


@app.command()
def log(recipe: Recipe, as_json: AsJson = False) -> None:
    """List the versions of the recipe's split, newest first."""
    from pipelines.data.versioned import versions

    listed = versions.log(_table(recipe))
    if as_json:
        return _print([each.as_json() for each in listed])
    rows = [
        (each.version, f"{each.created_at:%Y-%m-%d %H:%M}", *each.rows.values(), each.policy[:12], _remark(each))
        for each in listed
    ]
    _show(("version", "when (UTC)", *listed[0].rows, "policy", ""), rows)


@app.command()
def diff(
    recipe: Recipe,
    before: Annotated[int, typer.Argument(help="The earlier version.")],
    after: Annotated[int, typer.Argument(help="The later version.")],
    limit: Limit = 5,
    as_json: AsJson = False,
) -> None:
    """Show what was added, removed, changed and moved between two versions; moved ones are an error."""
    from pipelines.data.versioned import versions

    found = versions.diff(_table(recipe), before, after, limit, _kinds(recipe))
    if as_json:
        _print(asdict(found) | {"problem": found.problem})
    else:
        counts = {kind: getattr(found, kind) for kind in found.ids}
        print(f"{before} -> {after}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items()))
        for kind, rows in found.ids.items():
            if rows:
                print(f"\n{kind}, {len(rows)} of {counts[kind]:,}:")
                _show_rows(rows)
        if found.moved and found.started_over:
            print("\nBetween them every example was placed anew (--fresh, or another policy): moves are no mistake.")
    if found.problem:
        Progress().say(f"sluice: {found.problem}")
        raise typer.Exit(EXIT_FAILED)


@app.command()
def show(
    recipe: Recipe,
    version: Annotated[int, typer.Argument(help="Version, as `sluice data log` lists it.")],
    side: Side = None,
    limit: Limit = 10,
    as_json: AsJson = False,
) -> None:
    """Show a version's sizes and first rows, personal data masked."""
    from pipelines.data.versioned import versions

    found, rows = versions.show(_table(recipe), version, side, limit, _kinds(recipe))
    if as_json:
        return _print(found.as_json() | {"first_rows": rows})
    sizes = ", ".join(f"{place} {count:,}" for place, count in found.rows.items())
    print(f"version {version} of {found.created_at:%Y-%m-%d %H:%M} UTC: {sizes}\n")
    _show_rows(rows)


@app.command()
def restore(
    recipe: Recipe,
    version: Annotated[int, typer.Argument(help="Version to go back to.")],
    as_json: AsJson = False,
) -> None:
    """Append a version equal to an earlier one; nothing between is lost."""
    from pipelines.data.versioned import versions

    made = versions.restore(_table(recipe), version)
    if as_json:
        return _print({"restored": version, "version": made})
    print(
        f"Version {made} is what version {version} was. `sluice split {recipe}` grows from it when its inputs change."
    )


@app.command()
def export(
    recipe: Recipe,
    file: Annotated[Path, typer.Argument(help="New file: .csv, .jsonl or .parquet.")],
    version: Annotated[int | None, typer.Option(help="Version; without it, the newest.")] = None,
    side: Side = None,
    as_json: AsJson = False,
) -> None:
    """Write a version to a file; in CSV, cells that a spreadsheet would compute have ' before them."""
    from pipelines.data.versioned import versions
    from pipelines.data.versioned.export import export

    uri = _table(recipe)
    chosen = versions.newest(uri) if version is None else version
    rows = export(uri, chosen, file, side)
    if as_json:
        return _print({"file": str(file), "version": chosen, "rows": rows})
    print(f"{file}: {rows:,} rows of version {chosen}.")


@app.command()
def ledger(recipe: Recipe, as_json: AsJson = False) -> None:
    """Show what was fitted to which side of which version; anything but training rows in weights is an error."""
    from pipelines.data.versioned.ledger import check_fits

    fits = check_fits(Workspace(), _table(recipe))
    if as_json:
        _print([asdict(fit) for fit in fits])
    elif not fits:
        print("Nothing was fitted to this split yet.")
    else:
        rows = [
            (fit.version, fit.transform, fit.side, f"{fit.rows:,}", fit.recipe_name, fit.problem or "as it must be")
            for fit in fits
        ]
        _show(("version", "fitted", "saw", "rows", "recipe", "verdict"), rows)
    if any(fit.problem for fit in fits):
        Progress().say("sluice: something was fitted to rows that it must not see.")
        raise typer.Exit(EXIT_FAILED)


@app.command()
def review(
    recipe: Recipe,
    action: Annotated[str, typer.Argument(help="list, keep or drop.")] = "list",
    examples: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Ids of examples, or their first digits.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    because: Annotated[str, typer.Option(help="Why.")] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List suspect examples, or keep or drop some, on the record; the next audit and split go by it."""
    from pipelines import review as reviewing
    from pipelines.data.prepare import evidence_of, prepare
    from pipelines.recipe_file import load_recipe

    loaded, workspace, progress = load_recipe(recipe, []), Workspace(), Progress()
    corpus = prepare(loaded, workspace, progress)
    evidence = evidence_of(loaded, workspace, progress, corpus=corpus)
    if action == "list":
        decided = reviewing.decisions(workspace, loaded.name)
        listed, total = reviewing.suspects_of(corpus, evidence, decided, limit, loaded.audit.private.kinds)
        if as_json:
            return _print({"suspects": listed, "total": total})
        _show(
            ("id", "kind", "score", "decision", "reason", "text"),
            [
                (
                    each["id"][:12],
                    each["kind"],
                    each["score"],
                    each["decision"] or "",
                    each["reason"],
                    each["text"][:80],
                )
                for each in listed
            ],
        )
        return print(
            f"{len(listed)} of {total:,} suspicions. `sluice data review {recipe} keep|drop ID --by --because`"
        )
    if action not in ("keep", "drop"):
        raise UserError(f"{action!r} is no review.", "list, keep or drop.")
    if not examples:
        raise UserError(f"Nothing is named to {action}.", f"`sluice data review {recipe} list` shows ids.")
    found = reviewing.find_examples(corpus, evidence, examples)
    made = reviewing.decide(workspace, loaded.name, found, action, by=by, because=because)  # type: ignore[arg-type]
    if as_json:
        return _print([asdict(decision) for decision in made])
    for decision in made:
        print(f"{decision.example[:12]}: {decision.decision}, by {decision.by}: {decision.because}")
    print(f"`sluice audit {recipe}` counts by what people decided.")


@app.command()
def quarantine(
    recipe: Recipe,
    offset: Annotated[int, typer.Option(min=0, help="Leave out this many before.")] = 0,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the rows that the newest audit kept aside, with place, reason and content; personal data masked."""
    from pipelines.data.display.aside import audited_dataset, kept_aside
    from pipelines.recipe_file import load_recipe

    workspace = Workspace()
    dataset = audited_dataset(workspace, load_recipe(recipe, []).name)
    rows, total = kept_aside(workspace, dataset, offset, limit)
    if as_json:
        return _print({"rows": [asdict(row) for row in rows], "total": total})
    _show(("file", "row", "reason", "content"), [(row.file, row.row, row.reason, row.content[:200]) for row in rows])
    print(f"{len(rows)} of {total:,} rows that were kept aside.")


def _table(recipe: str) -> str:
    """Address of the recipe's split."""
    from pipelines.recipe_file import load_recipe

    return Workspace().uri("splits", load_recipe(recipe, []).name)


def _kinds(recipe: str) -> tuple[str, ...]:
    """Kinds of personal data that the recipe looks for."""
    from pipelines.recipe_file import load_recipe

    return load_recipe(recipe, []).audit.private.kinds


def _remark(version: Any) -> str:
    restored = f"equal to {version.restored}" if version.restored is not None else ""
    return ", ".join(filter(None, (restored, "placed anew" if version.starts_over else "")))


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _show_rows(rows: list[dict[str, Any]]) -> None:
    _show(
        ("id", "side", "group", "text"),
        [(r["id"][:12], _side(r), r["group"] or "", r["text"].replace("\n", " ")[:100]) for r in rows],
    )


def _side(row: dict[str, Any]) -> str:
    return f"{row['before']} -> {row['split']}" if "before" in row else str(row["split"])


def _show(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        # As text: what stands in the data is no markup of ours, and moves no terminal.
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(highlight=False).print(table)
