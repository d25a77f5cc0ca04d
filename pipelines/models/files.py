"""A base model's folder: whether its files can be trusted and loaded, and its fingerprint."""

import json
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from pipelines.fingerprint import file_fingerprint, fingerprint

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


def check_weights(folder: Path) -> None:
    """Raise UserError unless `folder` holds whole safetensors weights (pickle can run code when it is read)."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        found = f"only pickled weights ({', '.join(pickled[:3])})" if pickled else "no weights"
        raise UserError(
            f"{folder}: {found}; only safetensors are loaded.",
            "Convert the model on a machine you trust (`model.save_pretrained(folder)`), and name that folder.",
        )
    for path in weights:
        check_safetensors(path)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: config.json is missing.", "Name the folder that `save_pretrained` wrote.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(read_json(index).get("weight_map", {}).values())
        missing = sorted(named - {path.name for path in weights})
        if missing:
            raise UserError(f"{folder}: {len(missing)} weight files are missing, such as {missing[0]}.", "Fetch again.")


def check_safetensors(path: Path) -> None:
    """Raise UserError when the header is longer than the file, no JSON, or promises other bytes than there are."""
    remedy = "The file is damaged or cut off: fetch it again."
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise UserError(f"{path}: its header says {length} bytes, and the file has {size}.", remedy)
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise UserError(f"{path}: its header is no safetensors header.", remedy) from None
    if max(ends, default=0) != size - 8 - length:
        raise UserError(
            f"{path}: its header promises {max(ends, default=0)} bytes of weights, and {size - 8 - length} are there.",
            remedy,
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}).", "Fetch the model again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object.", "Fetch the model again.")
    return content


def model_files(folder: Path) -> list[Path]:
    """The files that make up the model, sorted; our own notes and hidden files are none of it."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != RECORD)


RECORD = "sluice.json"
"""Our note beside a base: where it came from, and what it hashed to."""


def remembered_fingerprint(folder: Path, memory: Path) -> str:
    """Hash over names and bytes of the model's files, remembered in `memory` while size and time stay the same."""
    state = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in model_files(folder)]
    if memory.is_file():
        noted = read_json(memory)
        if noted.get("state") == state and isinstance(noted.get("fingerprint"), str):
            return str(noted["fingerprint"])
    value = content_fingerprint(folder)
    memory.parent.mkdir(parents=True, exist_ok=True)
    partial = memory.with_name(memory.name + ".partial")
    partial.write_text(json.dumps({"folder": str(folder), "state": state, "fingerprint": value}), encoding="utf-8")
    partial.replace(memory)
    return value


def content_fingerprint(folder: Path) -> str:
    """Hash over names and bytes of the model's files: equal on every machine."""
    return fingerprint([(path.name, file_fingerprint(path)) for path in model_files(folder)])
