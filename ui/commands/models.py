"""`sluice export`: the evaluated model as a folder."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.progress import Progress
from pipelines.workspace import Workspace

app = typer.Typer()
PANEL = "The pipeline"


@app.command(rich_help_panel=PANEL)
def export(
    recipe: Annotated[str, typer.Argument(help="Recipe file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Those that the model was trained with.")
    ] = None,
    form: Annotated[
        Literal["adapter", "merged", "gguf"] | None,
        typer.Option("--format", help="Without it, what training left: the adapter, or the whole model."),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="New folder; without it, NAME-FORMAT here.")] = None,
    quantise: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"], typer.Option(help="How a GGUF file keeps its weights.")
    ] = "q8_0",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written alone, as JSON.")] = False,
) -> None:
    """Write the model that passed its evaluation into a folder: weights, tokenizer, template, model card.

    Merged weights and GGUF files are compared with base and adapter before they count. GGUF needs llama.cpp's
    converter (SLUICE_LLAMA_CPP).
    """
    from cluster.connect import prepare_environment
    from pipelines.commands import in_order, own_standard_output
    from pipelines.export import export
    from pipelines.recipe_file import load_recipe

    prepare_environment()
    with own_standard_output(as_json):
        path, changes = in_order([recipe, *(overrides or [])])
        done = export(load_recipe(path, changes), Workspace(), form, to, quantise=quantise, progress=Progress())
    if as_json:
        print(json.dumps(asdict(done), indent=2))
    else:
        print(f"{done.folder}: {done.form}, {done.bytes / 1e6:,.1f} MB{'' if done.made else ' (there already)'}.")
        print(done.check)
