"""What a corpus, its evidence and an audit's tokens are kept and found by."""

import contextlib
import json
from pathlib import Path

from pipelines.data.evidence import EVIDENCE_VERSION
from pipelines.data.profile import PROFILE_VERSION, ProfileSettings
from pipelines.data.similarity.sketches import SKETCH_VERSION
from pipelines.fingerprint import file_fingerprint, fingerprint, short
from pipelines.recipe import BaseModelChoice, Recipe
from pipelines.workspace import Workspace

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)


def code_version() -> str:
    """Changes when the same rows give other columns or other evidence: what was said of them before is not true now."""
    return f"{EVIDENCE_VERSION}.{PROFILE_VERSION}.{SKETCH_VERSION}"


def corpus_key(recipe: Recipe, workspace: Workspace, dataset: str) -> tuple[str, str]:
    """(of the data, settings and versions; of the tokenizer): other ones have another corpus."""
    settings = profile_settings(recipe, workspace)
    tokenizer = _tokenizer_files(Path(settings.tokenizer)) if settings.tokenizer else None
    return _rows_key(settings, dataset), short(fingerprint(tokenizer))


def evidence_key(recipe: Recipe, workspace: Workspace, dataset: str) -> str:
    """Of all that evidence depends on: the corpus but for its tokens, the rules of the searches, their models."""
    audit = recipe.audit
    return short(
        fingerprint(
            EVIDENCE_VERSION,
            _rows_key(profile_settings(recipe, workspace), dataset),
            audit.model_dump(mode="json", include={"near_duplicate_threshold", "semantic", "anomalies", "folds"}),
            recipe.seed,
            semantic_identity(recipe, workspace),
        )
    )


def _rows_key(settings: ProfileSettings, dataset: str) -> str:
    return short(fingerprint(PROFILE_VERSION, SKETCH_VERSION, dataset, settings.identity()))


def profile_settings(recipe: Recipe, workspace: Workspace) -> ProfileSettings:
    """What the columns of the recipe's corpus depend on."""
    folder = tokenizer_here(recipe.base, workspace)
    return ProfileSettings(
        threshold=recipe.audit.near_duplicate_threshold,
        instruction=recipe.dataset.instruction,
        private=tuple(sorted(recipe.audit.private.kinds)),
        tokenizer=str(folder) if folder else None,
    )


def tokenizer_here(choice: BaseModelChoice, workspace: Workspace) -> Path | None:
    """Folder of a model's tokenizer where it is on this machine and renders conversations: none is ever fetched."""
    from pipelines.models.load import base_already_here

    folder = base_already_here(choice, workspace.settings)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    described = folder / "tokenizer_config.json"
    with contextlib.suppress(OSError, ValueError):
        if (folder / "chat_template.jinja").is_file() or json.loads(described.read_text("utf-8")).get("chat_template"):
            return folder
    return None


def tokenizer_identity(choice: BaseModelChoice) -> str:
    """Fingerprint of the tokenizer that counts: of a folder's files, of a hub model's name and revision.

    A hub model may come here between two stages, for training fetches it. What was audited before it came stands.
    """
    folder = Path(choice.base).expanduser()
    return fingerprint(_tokenizer_files(folder) if folder.is_dir() else choice.model_dump(mode="json"))


def semantic_identity(recipe: Recipe, workspace: Workspace) -> str | None:
    """Fingerprint of the model whose states are compared, fetched where it is not here; None where none is."""
    if recipe.audit.semantic is None:
        return None
    from pipelines.models.load import base_fingerprint

    named = recipe.audit.semantic.model
    return base_fingerprint(BaseModelChoice(base=named) if named else recipe.base, workspace.settings)


def _tokenizer_files(folder: Path) -> list[tuple[str, str]]:
    files = sorted(path for path in folder.iterdir() if path.name in _TOKENIZER_FILES)
    return [(path.name, file_fingerprint(path)) for path in files]
