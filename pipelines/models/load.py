"""Finding a base model (local folder, models folder, installed package, hub) and loading it.

`python -m pipelines.models.load NAME [REVISION]` does the finding ahead of time and says what it did.
"""

import contextlib
import fcntl
import importlib.metadata
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError, first_line
from cluster.settings import Settings
from pipelines.fingerprint import fingerprint, short
from pipelines.models.catalogue import PackagedBase, packaged_base
from pipelines.models.files import RECORD, check_weights, read_json, remembered_fingerprint
from pipelines.models.kind import check_kind, is_encoder_decoder
from pipelines.recipe import BaseModelChoice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOCAL = "local"
"""The revision of a folder that nobody fetched."""


@dataclass(frozen=True)
class BaseFiles:
    """A base model on this machine."""

    name: str
    """As the recipe names it."""
    folder: Path
    fingerprint: str
    """Of the names and bytes of its files."""
    revision: str
    """Hub commit, package version, or LOCAL."""
    origin: str
    """Where the weights came from, in a sentence."""


def find_base(choice: BaseModelChoice, settings: Settings) -> BaseFiles:
    """The base that the recipe chose, fetched or converted when it is not here yet.

    Looked for as a local folder, in the models folder, in an installed package, on the hub. Raises
    UserError with what to do when it is nowhere, gated, pickled or damaged.
    """
    local = Path(choice.base).expanduser()
    if local.is_dir():
        return _describe(choice.base, local.absolute(), settings)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", choice.base, re.ASCII):
        raise UserError(
            f"models: there is no folder {choice.base}.", "Name an existing folder, or a hub model as owner/name."
        )
    folder = _kept_folder(choice, settings)
    if not (folder / RECORD).is_file():
        settings.models.mkdir(parents=True, exist_ok=True)
        with _only_one(settings.models / f".{folder.name}.lock"):
            if not (folder / RECORD).is_file():
                _bring(choice, folder)
    return _describe(choice.base, folder, settings)


def base_already_here(choice: BaseModelChoice, settings: Settings) -> Path | None:
    """The base's folder where it is on this machine already; nothing is fetched, converted or hashed."""
    local = Path(choice.base).expanduser()
    if local.is_dir():
        return local.absolute()
    folder = _kept_folder(choice, settings)
    return folder if (folder / RECORD).is_file() else None


def base_here(recorded: str, name: str, revision: str | None, expected: str, settings: Settings) -> Path:
    """The base that another machine recorded: its folder where that exists, else found by name and revision.

    Raises UserError when what is found has another fingerprint than `expected`.
    """
    if Path(recorded).is_dir():
        return Path(recorded)
    if not name:
        raise UserError(f"The base model's folder {recorded} is not on this machine.", "Copy it here, or train anew.")
    found = find_base(BaseModelChoice(base=name, revision=None if revision == LOCAL else revision), settings)
    if found.fingerprint != expected:
        raise UserError(
            f"{name}: this machine has other weights ({short(found.fingerprint)}) than were trained over "
            f"({short(expected)}).",
            f"Remove {found.folder} here, and pin models.revision so that every machine fetches the same.",
        )
    return found.folder


def base_fingerprint(choice: BaseModelChoice, settings: Settings) -> str:
    """Fingerprint of the base; cheap while its files do not change."""
    return find_base(choice, settings).fingerprint


def _kept_folder(choice: BaseModelChoice, settings: Settings) -> Path:
    """Where the models folder keeps the choice; a revision may also be the one that was fetched without naming it."""
    folder = settings.models / _folder_name(choice)
    unnamed = settings.models / _folder_name(choice.model_copy(update={"revision": None}))
    if choice.revision and not (folder / RECORD).is_file() and (unnamed / RECORD).is_file():
        return unnamed if read_json(unnamed / RECORD).get("revision") == choice.revision else folder
    return folder


def _folder_name(choice: BaseModelChoice) -> str:
    name = choice.base.replace("/", "--")
    return f"{name}@{re.sub(r'[^A-Za-z0-9._-]', '-', choice.revision)}" if choice.revision else name


def _describe(name: str, folder: Path, settings: Settings) -> BaseFiles:
    check_weights(folder)
    note = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    memory = settings.models / ".fingerprints" / f"{short(fingerprint(str(folder)))}.json"
    return BaseFiles(
        name=name,
        folder=folder,
        fingerprint=remembered_fingerprint(folder, memory),
        revision=str(note.get("revision", LOCAL)),
        origin=str(note.get("origin", f"local folder {folder.name}")),
    )


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait here while another process of this machine brings the same model."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _bring(choice: BaseModelChoice, folder: Path) -> None:
    """Make `folder`, complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        entry = packaged_base(choice.base)
        installed = _installed(entry) if entry else None
        if entry and installed and choice.revision in (None, installed[1]):
            note = _convert(entry, *installed, partial)
        else:
            from pipelines.models.hub import download

            note = download(choice, partial, entry)
        check_weights(partial)
        (partial / RECORD).write_text(json.dumps({"name": choice.base} | note, indent=2), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _installed(entry: PackagedBase) -> tuple[Path, str] | None:
    """The package's file and its `name==version`, found without importing it; None when it is not installed."""
    try:
        distribution = importlib.metadata.distribution(entry.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(entry.file)))
    return (path, f"{entry.package}=={distribution.version}") if path.is_file() else None


def _convert(entry: PackagedBase, file: Path, revision: str, target: Path) -> dict[str, str]:
    """Write the package's weights as safetensors into `target`; the record of origin."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            # Without it the weights stay in 4-bit blocks that can be neither saved nor trained.
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)
    return {
        "revision": revision,
        "origin": f"dequantised from the {entry.precision} GGUF file of the package {revision} and kept in bfloat16: "
        "close to the published weights, not equal to them",
        "licence": entry.licence,
    }


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`. Raises UserError when it is missing or knows more tokens than the model embeds."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {first_line(error)}", "Fetch it again.") from None
    config = read_json(Path(folder) / "config.json") if (Path(folder) / "config.json").is_file() else {}
    embedded = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if embedded and len(tokenizer) > embedded:
        raise UserError(
            f"{folder}: the tokenizer knows {len(tokenizer)} tokens and the model embeds {embedded}.",
            "The tokenizer belongs to another model, or the embedding was not resized: use a matching pair.",
        )
    # How conversations become tokens depends on it, and whoever encodes them has the tokenizer alone.
    tokenizer.is_encoder_decoder = is_encoder_decoder(folder)
    return tokenizer


def load_model(folder: str | Path, dtype: str = "bfloat16", **options: Any) -> "PreTrainedModel":
    """The language model in `folder`, of the kind that its configuration says, in eval mode.

    `options` go to transformers: what quantises the weights as they are read. Raises UserError for an encoder-decoder
    outside the T5 family.
    """
    from transformers import AutoModelForSeq2SeqLM

    if not is_encoder_decoder(folder):
        return load_causal_lm(folder, dtype, **options)
    check_kind(folder)
    return _load(AutoModelForSeq2SeqLM, folder, dtype, "an encoder-decoder language model", options)


def load_causal_lm(folder: str | Path, dtype: str = "bfloat16", **options: Any) -> "PreTrainedModel":
    """The causal language model in `folder`, in eval mode; remote code is never run."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, folder, dtype, "a causal language model", options)


def _load(auto: Any, folder: str | Path, dtype: str, kind: str, options: dict[str, Any]) -> "PreTrainedModel":
    import torch

    try:
        with quiet_transformers():
            model: PreTrainedModel = auto.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa",
                **options,
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: the model cannot be loaded: {first_line(error)}",
            f"It must be {kind} that transformers knows without code of its own.",
        ) from None
    model.eval()  # type: ignore[no-untyped-call]
    return model


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and notes of transformers inside."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def main(arguments: list[str] | None = None) -> int:
    """Fetch or convert a base ahead of time; the exit code."""
    import time

    from cluster.connect import prepare_environment
    from pipelines.commands import user_errors

    given = sys.argv[1:] if arguments is None else arguments
    prepare_environment()
    with user_errors() as outcome:
        if not 1 <= len(given) <= 2 or given[0].startswith("-"):
            raise UserError("Name one base model.", "`python -m pipelines.models.load OWNER/NAME [REVISION]`")
        settings, started = Settings.from_environment(), time.monotonic()
        choice = BaseModelChoice.model_validate({"base": given[0], "revision": given[1] if given[1:] else None})
        here = (settings.models / _folder_name(choice) / RECORD).is_file() or Path(choice.base).is_dir()
        if not here:
            print(f"{choice.base}: not here yet; looking in the installed packages, then on the hub ...")
        found = find_base(choice, settings)
        print(f"{found.name}: {'already in' if here else f'{time.monotonic() - started:.0f} s, now in'} {found.folder}")
        print(f"  origin: {found.origin}\n  revision {found.revision}, fingerprint {short(found.fingerprint)}")
    return outcome.code


if __name__ == "__main__":
    from pipelines.models import load

    sys.exit(load.main())
