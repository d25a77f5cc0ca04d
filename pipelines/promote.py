"""Promote: register the tuned model with its whole lineage, and write it into the deployment log."""

import sys

from pipelines import stage
from pipelines.gates import Verdict
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stage import Outcome, Stage, require
from pipelines.stages import GATES, SUMMARIES, load_stage
from pipelines.workspace import Workspace


def reads(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The evaluation that passed, the model's files as they are, the waivers on the way, and what stands instead.

    The newest deployment of another model is read because promoting this one after it (or after a rollback to
    it) is a new decision, not the old report; the files, because a report that found them gone says nothing of
    them once they are back; the name, because each recipe has a log of its own.
    """
    from pipelines.fingerprint import fingerprint
    from pipelines.tracking import deployments
    from pipelines.tracking.lineage import ancestors, model_problem

    evaluation = require(load_stage("evaluate"), recipe, workspace)
    reports = ancestors(recipe, workspace)
    trained = require(load_stage("train"), recipe, workspace).produced
    waivers = [(w.report, w.gate, w.by, w.because) for report in reports.values() if report for w in report.waivers]
    others = [
        row.id
        for row in deployments.history(workspace, recipe.name)
        if row.content["train"]["model_fingerprint"] != trained["model_fingerprint"]
    ]
    return {
        "evaluate": evaluation.key,
        "model": fingerprint(model_problem(workspace, trained) or trained["model_fingerprint"]),
        "waivers": fingerprint(waivers),
        "instead": fingerprint(recipe.name, others[:1]),
    }


def work(recipe: Recipe, workspace: Workspace, progress: Progress, fresh: bool) -> Outcome:
    """Check the lineage; when it holds, register, move the alias, append to the log."""
    from pipelines.tracking import deployments, registry
    from pipelines.tracking.lineage import ancestors, lineage, lineage_gate

    found = ancestors(recipe, workspace)
    gate = lineage_gate(found, workspace)
    if gate.verdict is Verdict.CLOSED:
        return Outcome(gates=(gate,))
    reports = {name: report for name, report in found.items() if report is not None}
    content = lineage(recipe, reports)
    version = registry.register(workspace.settings, recipe.name, content)
    before = deployments.current(workspace, recipe.name)
    # Started again after a crash between the log and the report: the deployment stands already.
    # What an experiment has put back to its base comes again only when somebody asks for just that.
    put_back = before is not None and deployments.champion_of(before) is None
    if before is None or before.model_version != version or (fresh and put_back):
        row = deployments.append(
            workspace,
            recipe_name=recipe.name,
            action=deployments.PROMOTE,
            model_name=recipe.name,
            model_version=version,
            content=content,
            by=promoter(),
        )
    else:
        row = before
    # The log is the switch; the alias follows it.
    champion = deployments.champion_of(row)
    registry.set_champion(workspace.settings, recipe.name, champion)
    if champion is None:
        progress.say(f"promote: the base serves everyone since deployment {row.id}; --fresh promotes {version} again.")
    else:
        progress.say(f"promote: {recipe.name} version {version} is the champion (deployment {row.id}, by {row.by}).")
    return Outcome(
        gates=(gate,),
        figures={
            "version": version,
            "replaces": before.model_version if before is not None and before.id != row.id else None,
            "waivers": content["waivers"],
        },
        produced={
            "registered_model": recipe.name,
            "model_version": version,
            "deployment": str(row.id),
            "model": content["train"]["model"],
        },
    )


def promoter() -> str:
    """Who acts: SLUICE_BY, else the user of this process."""
    import getpass
    import os

    try:
        return os.environ.get("SLUICE_BY") or getpass.getuser()
    except (OSError, KeyError):
        # A container's user may have no name.
        return f"uid {os.getuid()}"


STAGE = Stage("promote", SUMMARIES["promote"], GATES["promote"], reads, work)


def main() -> int:
    """`python -m pipelines.promote recipe.yaml`; the exit code."""
    return stage.main(STAGE)


if __name__ == "__main__":
    from pipelines import promote

    sys.exit(promote.main())
