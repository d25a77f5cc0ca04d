"""The whole pipeline, from audit to promote, gate by gate."""

import argparse
import json
import sys

from cluster.connect import prepare_environment
from cluster.errors import Stopped
from pipelines.commands import EXIT_DONE, EXIT_GATE_CLOSED, in_order, own_standard_output, user_errors
from pipelines.dry_run import dry_run_of_all
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stages import STAGES, load_stage
from pipelines.workspace import Workspace


def run_pipeline(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool = False) -> list[Report]:
    """The reports of the stages in their order; the last one is closed where a gate kept the rest from starting.

    Raises Stopped before the next stage when that was asked for.
    """
    from pipelines.submissions import stop_requested

    names = stages_of(recipe)
    reports: list[Report] = []
    for number, name in enumerate(names, start=1):
        if stop_requested(workspace):
            raise Stopped(
                f"Stopped before {name}: stop requested.",
                "Run the same command again: what was done is not done again.",
            )
        stage = load_stage(name)
        progress.say(f"\n== {number}/{len(names)} {name} == {stage.summary}")
        report = stage.perform(recipe, workspace, progress, fresh=fresh)
        reports.append(report)
        for gate in report.gates:
            progress.say(f"   {gate.gate}: {gate.verdict}. {gate.evidence}")
        progress.say(f"   {name}: {report.verdict} after {report.seconds:.1f} s")
        if report.verdict is Verdict.CLOSED:
            break
    return reports


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that the recipe goes through: a sweep only where it has one."""
    return [name for name in STAGES if name != "sweep" or recipe.sweep is not None]


def main(arguments: list[str] | None = None) -> int:
    """`python -m pipelines.run recipe.yaml [key=value ...] [--json] [--fresh] [--dry-run]`; the exit code."""
    from pipelines.recipe_file import load_recipe

    parser = argparse.ArgumentParser(prog="sluice run", description="Audit to promote, gate by gate.")
    parser.add_argument("recipe", help="recipe file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in train.learning_rate=2e-4")
    parser.add_argument("--json", action="store_true", help="print the reports alone, as JSON")
    parser.add_argument("--fresh", action="store_true", help="do the work again, whatever was stored")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and the plan, and stop")
    options = parser.parse_intermixed_args(arguments)
    prepare_environment()
    with user_errors(options.json) as outcome:
        path, overrides = in_order([options.recipe, *options.overrides])
        with own_standard_output(options.json):
            recipe = load_recipe(path, overrides)
            workspace = Workspace()
            if options.dry_run:
                plan = dry_run_of_all([load_stage(name) for name in stages_of(recipe)], recipe, workspace)
            else:
                reports = run_pipeline(recipe, workspace, Progress(), fresh=options.fresh)
        if options.dry_run:
            print(plan)
            return EXIT_DONE
        show_outcome(recipe, reports, path, as_json=options.json)
        outcome.code = exit_code(reports)
    return outcome.code


def exit_code(reports: list[Report]) -> int:
    """Done, or a required gate is closed."""
    return EXIT_GATE_CLOSED if reports[-1].verdict is Verdict.CLOSED else EXIT_DONE


def show_outcome(recipe: Recipe, reports: list[Report], recipe_path: str, *, as_json: bool) -> None:
    """The run on standard output: tables for people, or one JSON object."""
    from pipelines.summary import show_summary

    if as_json:
        content = {"verdict": str(reports[-1].verdict), "reports": [report.as_json() for report in reports]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        show_summary(recipe, reports, recipe_path)


if __name__ == "__main__":
    from pipelines import run

    sys.exit(run.main())
