"""`--dry-run`: the resolved recipe, what is there, and what is missing."""

from cluster.errors import UserError
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump_recipe
from pipelines.stage import Stage
from pipelines.workspace import Workspace


def dry_run(stage: Stage, recipe: Recipe, workspace: Workspace) -> str:
    """The recipe as YAML, then the plan of `stage` as YAML comments: the whole text is a valid recipe."""
    lines = [dump_recipe(recipe), f"# plan of {stage.name}", f"# decides: {', '.join(stage.gates) or 'no gate'}"]
    lines.append(f"# workspace: {workspace.settings.storage}")
    train, workers = recipe.train, recipe.cluster.num_workers
    accumulation = train.global_batch_size // (train.per_device_train_batch_size * workers)
    lines.append(
        f"# step: {workers} worker(s) x {train.per_device_train_batch_size} sequence(s) "
        f"x {accumulation} accumulated = {train.global_batch_size}; "
        f"learning rate {train.peak_learning_rate:g}, ZeRO {train.deepspeed.stage}"
    )
    try:
        fingerprints = stage.reads(recipe, workspace)
    except UserError as error:
        lines += ["# missing:", *(f"#   {line}" for line in str(error).splitlines())]
    else:
        lines += ["# reads:", *(f"#   {name}: {value[:12]}" for name, value in fingerprints.items())]
    return "\n".join(lines)
