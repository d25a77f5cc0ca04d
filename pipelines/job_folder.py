"""The folder that a job starts in: our packages, the resolved recipe, and what data must travel."""

import shutil
from pathlib import Path

from cluster.errors import UserError
from cluster.packages import copy_packages
from pipelines.data.reading.sources import is_package, list_files
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump_recipe

DATA = "data"
"""Folder of the data inside the job's."""

MAX_DATA_BYTES = 100 * 2**20
"""Most that travels with a job; Ray itself refuses folders above 512 MiB."""


def fill(folder: Path, recipe: Recipe, *, shared_files: bool) -> None:
    """Write all that the job needs into `folder`.

    With `shared_files` the cluster sees this machine's files, and local data stay where they are; else they are
    copied. Raises UserError when they are missing or too large, or when the base model is a folder of this machine.
    """
    copy_packages(folder)
    if not shared_files:
        _check_base(recipe)
        recipe = _take_data_along(folder, recipe)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")


def _take_data_along(folder: Path, recipe: Recipe) -> Recipe:
    source = recipe.dataset.source
    sources = (source,) if isinstance(source, str) else source
    named = tuple(each for each in sources if not is_package(each))
    # The very list that a reader on this machine gets: each file once, by the name that its fingerprint covers.
    local = [file for file in list_files(named) if file.is_local] if named else []
    size = sum(file.size for file in local)
    if size > MAX_DATA_BYTES:
        raise UserError(
            f"The data have {size / 2**20:,.0f} MiB; at most {MAX_DATA_BYTES // 2**20} MiB travel with a job.",
            "Put them into the workspace's storage, and name them by their URI in dataset.source.",
        )
    for file in local:
        target = folder / DATA / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.uri, target)
    taken = (*(f"{DATA}/{file.name}" for file in local), *(each for each in sources if "://" in each))
    dataset = recipe.dataset.model_copy(update={"source": taken[0] if len(taken) == 1 else taken})
    return recipe.model_copy(update={"dataset": dataset})


def _check_base(recipe: Recipe) -> None:
    if Path(recipe.base.base).is_absolute():
        raise UserError(
            f"{recipe.base.base} is a folder of this machine; the cluster cannot read it.",
            "Name a hub model, or a folder that every node has (with SLUICE_MODELS set there).",
        )
