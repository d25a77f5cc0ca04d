"""The recipes that a launch starts from: the one of the newest report, a shipped one, or a file."""

from pathlib import Path
from uuid import uuid4

from cluster.connect import ROOT
from cluster.errors import UserError
from pipelines.fingerprint import fingerprint, short
from pipelines.recipe_file import dump_recipe, resolve
from ui.panel import backend

SHIPPED = ROOT / "pipelines" / "recipes"
RECORDED, FILE = "recorded", "file"
"""Values of the address's `from`, beside the name of a shipped recipe."""


def shipped() -> list[str]:
    """File names of the recipes that come with Sluice."""
    return sorted(path.name for path in SHIPPED.glob("*.yaml"))


def path_of(source: str, recipe_name: str | None, path: str) -> Path:
    """The file to start from. Raises UserError when there is none."""
    if source == RECORDED:
        return recorded(recipe_name or "")
    if source in shipped():
        return SHIPPED / source
    if source != FILE:
        raise UserError(f"There is no shipped recipe {source[:100]!r}.", f"There are {', '.join(shipped())}.")
    file = Path(path).expanduser()
    if file.suffix not in (".yaml", ".yml"):
        raise UserError("A recipe is a file that ends with .yaml or .yml.", "`sluice init` writes one.")
    if not file.is_absolute():
        raise UserError(f"{path}: not a whole path.", "The panel runs in a folder of its own: begin with / or ~.")
    return file


def recorded(recipe_name: str) -> Path:
    """The recipe of the newest report under this name, as a file named by its content."""
    found = backend.pipeline(recipe_name)
    if found.value is None:
        problem = found.problem
        raise UserError(
            problem.message if problem else f"No stage of {recipe_name!r} has left a report here.",
            problem.remedy if problem else "Start from a shipped recipe, or from a file.",
        )
    # Its sources were made absolute when it was reported.
    recipe = resolve(found.value.recipe, f"The recipe of {recipe_name}'s newest report", Path("/"))
    text = dump_recipe(recipe)
    workspace = backend.workspace()
    folder = Path(workspace.uri("recipes")) if workspace.is_local else Path.home() / ".sluice" / "recipes"
    path = folder / f"{recipe.name}-{short(fingerprint(text))}.yaml"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two tabs may write it at once.
        partial = path.with_suffix(f".{uuid4().hex}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Start from a file instead.") from None
    return path
