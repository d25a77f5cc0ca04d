"""`sluice run`, `demo`, `serve`, `panel` and `rollback`: the whole pipeline, and what comes after it."""

import signal
from typing import Annotated

import typer

from pipelines.progress import Progress
from pipelines.workspace import Workspace

app = typer.Typer()
PANEL, SERVICE = "The pipeline", "In service"
Recipe = Annotated[str, typer.Argument(help="Recipe file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As in train.lora_r=8.")]


@app.command(rich_help_panel=PANEL)
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports alone, as JSON.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do the work again, whatever was stored.")] = False,
    plan_only: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan.")] = False,
) -> None:
    """Go from audit to promote, gate by gate; stop at the first closed one."""
    from pipelines import run as pipeline
    from pipelines.commands import in_order

    options = {"--json": as_json, "--fresh": fresh, "--dry-run": plan_only}
    flags = (option for option, given in options.items() if given)
    path, changes = in_order([recipe, *(overrides or [])])
    raise typer.Exit(pipeline.main([path, *changes, *flags]))


@app.command(rich_help_panel=PANEL)
def demo(
    recipe: Annotated[str | None, typer.Argument(help="Recipe file; without it, summaries of docstrings.")] = None,
    overrides: Overrides = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the served models; another where it is taken.")
    ] = 8000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do all the work again.")] = False,
) -> None:
    """Real examples to a tuned model that answers, on this machine."""
    from ui.demo import RECIPE, run_demo

    path = recipe or RECIPE
    code = run_demo(Workspace(), Progress(), port=port, fresh=fresh, recipe_path=path, overrides=overrides or [])
    raise typer.Exit(code)


@app.command(rich_help_panel=SERVICE)
def serve(
    recipe: Recipe,
    overrides: Overrides = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    certificate: Annotated[
        str | None, typer.Option("--tls-certificate", help="PEM file: listen by HTTPS, with this certificate.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--tls-key", help="PEM file with its private key, without a password.")
    ] = None,
) -> None:
    """Host base and tuned behind an OpenAI-compatible address, until Ctrl-C."""
    from cluster.connect import starts_its_own
    from pipelines.recipe_file import load_recipe
    from serve.app import start
    from serve.keys import anyone_has_one
    from serve.listening import address

    progress, workspace = Progress(), Workspace()
    loaded = load_recipe(recipe, overrides or [])
    where = address(host, port, certificate, key, is_here=starts_its_own(workspace.settings))
    progress.say(f"{loaded.name}: starting Ray and loading base and tuned ...")
    handle = start(loaded, workspace, where)
    # `make up` and process managers end us with SIGTERM: as Ctrl-C does. Ray sets its own when it starts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress.say(f"{handle.recipe_name} version {handle.model_version} answers at {handle.url}/v1 (Ctrl-C ends it).")
    if certificate is not None:
        progress.say("Clients ask by a name that its certificate has.")
    if loaded.serve.keys == "required" and not anyone_has_one(workspace, loaded.name):
        progress.say(f"It asks for a key, and nobody has one yet: `sluice keys add {recipe} NAME` makes one.")
    try:
        handle.wait()
    except KeyboardInterrupt:
        progress.say("ending ...")
    finally:
        handle.stop()


@app.command(rich_help_panel=SERVICE)
def panel(
    host: Annotated[str, typer.Option(help="Address to listen on; the panel asks nobody who they are.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
) -> None:
    """Open the panel: gates with their evidence, live runs, both models side by side; until Ctrl-C."""
    from ui.panel.launch import launch

    Progress().say(f"The panel is at http://{host}:{port} (Ctrl-C ends it).")
    raise typer.Exit(launch(host, port))


@app.command(rich_help_panel=SERVICE)
def rollback(
    recipe: Recipe,
    overrides: Overrides = None,
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    because: Annotated[str, typer.Option(help="Why.")] = "",
    to: Annotated[int | None, typer.Option(help="Deployment to restore; without it, the one before.")] = None,
) -> None:
    """Put an earlier deployment back; the log keeps both."""
    from pipelines.recipe_file import load_recipe
    from pipelines.rollback import rollback

    row = rollback(Workspace(), load_recipe(recipe, overrides or []).name, to, by, because)
    print(f"{row.recipe_name}: version {row.model_version} is back (deployment {row.id}, by {row.by}).")
    print("A service that runs follows once it has loaded it, and cuts off no answer; /healthz and the panel tell.")
