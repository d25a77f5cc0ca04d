"""`sluice init` and `sluice schema`: writing recipes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import UserError

app = typer.Typer()
PANEL = "Recipes"


@app.command(rich_help_panel=PANEL)
def init(
    path: Annotated[Path, typer.Argument(help="File to write; an existing one is left alone.")] = Path("recipe.yaml"),
    name: Annotated[str, typer.Option(help="Name of the recipe.")] = "my-model",
    source: Annotated[str, typer.Option(help="Your examples: files, URIs or package://.")] = "data/*.jsonl",
    base: Annotated[str, typer.Option(help="Base model.")] = "HuggingFaceTB/SmolLM2-135M-Instruct",
) -> None:
    """Write a recipe with every key, its default and what it means."""
    from pipelines.recipe_file import parse_yaml, resolve
    from pipelines.recipe_template import commented_recipe

    text = commented_recipe(name, source, base)
    resolve(parse_yaml(text), "sluice init", path.absolute().parent)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists already; it is left as it is.", "Name another file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Name a file that can.") from None
    print(f"{path} is written. Next: sluice audit {path} --dry-run")


@app.command(rich_help_panel=PANEL)
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from pipelines.recipe import Recipe

    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sluice recipe"}
    print(json.dumps(draft | Recipe.model_json_schema(), indent=2))
