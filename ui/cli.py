"""The command line: `sluice VERB RECIPE [key=value ...]`."""

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import EXIT_FAILED, run_stage, user_errors
from pipelines.stages import GATES, STAGES, SUMMARIES, load_stage
from ui.commands import data, evidence, experiment, house, jobs, keys, models, recipes, service, trials

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="sluice",
    help="Fine-tunes language models on Ray, with a gate at every known mistake.",
    epilog="Exit codes: 0 done, 1 failed, 2 the request was wrong, 3 a required gate is closed.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add_stage(name: str) -> None:
    gates = f" Decides {', '.join(GATES[name])}." if GATES[name] else ""

    def verb(
        recipe: Annotated[str, typer.Argument(help="Recipe file.")],
        overrides: Annotated[
            list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As in train.learning_rate=2e-4.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the report alone, as JSON.")] = False,
        fresh: Annotated[bool, typer.Option("--fresh", help="Do the work again, whatever was stored.")] = False,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on from what is stored; so it is without it too.")
        ] = False,
        plan_only: Annotated[
            bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan, and stop.")
        ] = False,
    ) -> None:
        options = {"--json": as_json, "--fresh": fresh, "--resume": resume, "--dry-run": plan_only}
        arguments = [recipe, *(overrides or []), *(option for option, given in options.items() if given)]
        raise typer.Exit(run_stage(load_stage(name), arguments))

    summary = SUMMARIES[name]
    app.command(name, help=f"{summary}{gates}", short_help=summary, rich_help_panel="The pipeline")(verb)


for _name in STAGES:
    _add_stage(_name)
for _part in (service, models, evidence, recipes, jobs, house):
    app.add_typer(_part.app)
app.add_typer(data.app, name="data", rich_help_panel=evidence.PANEL)
app.add_typer(trials.app, name="trials", rich_help_panel=evidence.PANEL)
app.add_typer(experiment.app, name="experiment", rich_help_panel=service.SERVICE)
app.add_typer(keys.app, name="keys", rich_help_panel=service.SERVICE)


def main(arguments: list[str] | None = None) -> None:
    """Run a verb and exit; what goes wrong is one sentence, with the full account in a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with user_errors(as_json="--json" in arguments) as outcome:
            app(args=arguments, prog_name="sluice")
    except BrokenPipeError:
        # The reader of our output left (`sluice schema | head`): nothing to tell anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("sluice: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        print(f"sluice: unexpected {type(error).__name__}: {reason}", file=sys.stderr)
        print(f"  -> The full account is in {record_trace(error, arguments)}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    sys.exit(outcome.code)


def record_trace(error: BaseException, arguments: list[str]) -> Path:
    """File (readable by its owner alone) with the command and the traceback of an error that nobody foresaw."""
    descriptor, path = tempfile.mkstemp(prefix=f"sluice-{datetime.now(UTC):%Y%m%dT%H%M%S}-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f"sluice {' '.join(arguments)}\n\n")
        stream.writelines(traceback.format_exception(error))
    return Path(path)


if __name__ == "__main__":
    main()
