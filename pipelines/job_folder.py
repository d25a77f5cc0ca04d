"""The folder that a job starts in: our packages, the resolved recipe, and what data must travel."""

import shutil
from pathlib import Path

from cluster.errors import UserError
from cluster.packages import copy_packages
from pipelines.data.reading.sources import SourceFile, is_package, list_files
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump_recipe

DATA, BENCHMARKS = "data", "benchmarks"
"""Folders of dataset.source and of split.benchmarks inside the job's."""

MAX_DATA_BYTES = 100 * 2**20
"""Most that travels with a job; Ray itself refuses folders above 512 MiB."""


def fill(folder: Path, recipe: Recipe, *, shared_files: bool) -> None:
    """Write all that the job needs into `folder`.

    With `shared_files` the cluster sees this machine's files, and local data stay where they are; else they are
    copied. Raises UserError when they are missing or too large, or when a model is a folder of this machine.
    """
    copy_packages(folder)
    if not shared_files:
        _check_models(recipe)
        recipe = _take_data_along(folder, recipe)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")


def _take_data_along(folder: Path, recipe: Recipe) -> Recipe:
    places = {DATA: recipe.dataset.source, BENCHMARKS: recipe.split.benchmarks}
    sources = {place: (named,) if isinstance(named, str) else named for place, named in places.items()}
    local = {place: _local_files(named) for place, named in sources.items()}
    size = sum(file.size for files in local.values() for file in files)
    if size > MAX_DATA_BYTES:
        raise UserError(
            f"The data have {size / 2**20:,.0f} MiB; at most {MAX_DATA_BYTES // 2**20} MiB travel with a job.",
            "Put them into the workspace's storage, and name them by their URI in dataset.source.",
        )
    taken = {}
    for place, files in local.items():
        for file in files:
            target = folder / place / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file.uri, target)
        elsewhere = (each for each in sources[place] if "://" in each)
        taken[place] = (*(f"{place}/{file.name}" for file in files), *elsewhere)
    source = taken[DATA][0] if len(taken[DATA]) == 1 else taken[DATA]
    return recipe.model_copy(
        update={
            "dataset": recipe.dataset.model_copy(update={"source": source}),
            "split": recipe.split.model_copy(update={"benchmarks": taken[BENCHMARKS]}),
        }
    )


def _local_files(sources: tuple[str, ...]) -> list[SourceFile]:
    """The very list that a reader on this machine gets: each file once, by the name that its fingerprint covers."""
    named = tuple(each for each in sources if not is_package(each))
    return [file for file in list_files(named) if file.is_local] if named else []


def _check_models(recipe: Recipe) -> None:
    semantic = recipe.audit.semantic
    for model in (recipe.base.base, semantic.model if semantic else None):
        if model and Path(model).is_absolute():
            raise UserError(
                f"{model} is a folder of this machine; the cluster cannot read it.",
                "Name a hub model, or a folder that every node has (with SLUICE_MODELS set there).",
            )
