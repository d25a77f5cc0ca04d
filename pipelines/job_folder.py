"""The folder that a job starts in: our packages, the resolved recipe, and what data must travel."""

import glob
import shutil
from pathlib import Path

from cluster.errors import UserError
from cluster.packages import copy_packages
from pipelines.recipe import Recipe
from pipelines.recipe_file import dump_recipe

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
    files = {each: _files(each) for each in sources if "://" not in each}
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    if size > MAX_DATA_BYTES:
        raise UserError(
            f"The data have {size / 2**20:,.0f} MiB; at most {MAX_DATA_BYTES // 2**20} MiB travel with a job.",
            "Put them into the workspace's storage, and name them by their URI in dataset.source.",
        )
    taken: list[str] = []
    for number, each in enumerate(sources):
        if each not in files:
            taken.append(each)
            continue
        for path in files[each]:
            target = folder / "data" / str(number) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            # The recipe's sources are globs, and a file's name may hold their characters.
            taken.append(f"data/{number}/{glob.escape(path.name)}")
    dataset = recipe.dataset.model_copy(update={"source": taken[0] if len(taken) == 1 else tuple(taken)})
    return recipe.model_copy(update={"dataset": dataset})


def _files(pattern: str) -> list[Path]:
    plain = Path(pattern)
    if plain.is_dir():
        found = sorted(path for path in plain.rglob("*") if path.is_file())
    else:
        found = [plain] if plain.is_file() else sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    found = [path for path in found if path.is_file()]
    if not found:
        raise UserError(f"{pattern}: no such file.", "Correct dataset.source.")
    if len({path.name for path in found}) < len(found):
        raise UserError(
            f"{pattern}: several files have the same name, and would be one in the job's folder.",
            "Name the folders one by one in dataset.source, or put the data into the workspace's storage.",
        )
    return found


def _check_base(recipe: Recipe) -> None:
    if Path(recipe.base.base).is_absolute():
        raise UserError(
            f"{recipe.base.base} is a folder of this machine; the cluster cannot read it.",
            "Name a hub model, or a folder that every node has (with SLUICE_MODELS set there).",
        )
