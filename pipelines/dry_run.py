"""`--dry-run`: the resolved recipe, what is there, and what is missing."""

from cluster.errors import UserError
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump_recipe
from pipelines.stage import Stage
from pipelines.workspace import Workspace


def dry_run(stage: Stage, recipe: Recipe, workspace: Workspace) -> str:
    """The recipe as YAML, then the plan of `stage` as YAML comments: the whole text is a valid recipe."""
    return "\n".join([dump_recipe(recipe), *_place_and_step(recipe, workspace), *_plan(stage, recipe, workspace)])


def dry_run_of_all(stages: list[Stage], recipe: Recipe, workspace: Workspace) -> str:
    """The recipe once, then the plan of each stage; what an earlier stage is still to bring counts as missing."""
    plans = [line for stage in stages for line in _plan(stage, recipe, workspace)]
    return "\n".join([dump_recipe(recipe), *_place_and_step(recipe, workspace), *plans])


def _place_and_step(recipe: Recipe, workspace: Workspace) -> list[str]:
    train, workers = recipe.train, recipe.cluster.num_workers
    if train.per_device_train_batch_size == "auto":
        step = f"{workers} worker(s) x as many sequences as fit, accumulated"
    else:
        accumulation = train.global_batch_size // (train.per_device_train_batch_size * workers)
        step = f"{workers} worker(s) x {train.per_device_train_batch_size} sequence(s) x {accumulation} accumulated"
    return [
        f"# workspace: {workspace.settings.storage}",
        f"# step: {step} = {train.global_batch_size}; "
        f"learning rate {train.peak_learning_rate:g}, ZeRO {train.deepspeed.stage}",
    ]


def _plan(stage: Stage, recipe: Recipe, workspace: Workspace) -> list[str]:
    lines = [f"# plan of {stage.name}", f"# decides: {', '.join(stage.gates) or 'no gate'}"]
    try:
        fingerprints = stage.reads(recipe, workspace)
    except UserError as error:
        return [*lines, "# missing:", *(f"#   {line}" for line in str(error).splitlines())]
    return [*lines, "# reads:", *(f"#   {name}: {value[:12]}" for name, value in fingerprints.items())]
