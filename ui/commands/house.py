"""`sluice doctor` and `sluice version`: this machine and this release."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.commands import EXIT_FAILED

app = typer.Typer()
PANEL = "House"


@app.command(rich_help_panel=PANEL)
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the checks alone, as JSON.")] = False) -> None:
    """Look at this machine and say what to do: versions, compiler, operators, token, space, ports, workspace."""
    from cluster.settings import Settings
    from ui.doctor import examine

    checks = examine(Settings.from_environment())
    failed = sum(check.state == "fail" for check in checks)
    if as_json:
        print(json.dumps({"failed": failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        from rich.console import Console
        from rich.text import Text

        console, colours = Console(highlight=False), {"ok": "green", "warn": "yellow", "fail": "bold red"}
        for check in checks:
            line = Text(f"{check.state:>4}  ", style=colours[check.state]) + Text(f"{check.name}: {check.found}")
            console.print(line, soft_wrap=True)
            if check.remedy:
                console.print(Text(f"        -> {check.remedy}"), soft_wrap=True)
    raise typer.Exit(EXIT_FAILED if failed else 0)


@app.command(rich_help_panel=PANEL)
def version() -> None:
    """Print the version."""
    print(f"sluice {installed_version()}")


def installed_version() -> str:
    """The version that was installed, or the one of the checkout that runs."""
    import importlib.metadata
    import tomllib

    from cluster.connect import ROOT

    project = ROOT / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return importlib.metadata.version("sluice")
