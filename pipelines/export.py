"""Export: the evaluated model as a folder that can be used anywhere: weights, tokenizer, template, card."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines.fingerprint import fingerprint
from pipelines.gates import Verdict
from pipelines.models.export_folder import standing_export, write_record, written_whole
from pipelines.models.files import PICKLED, RECORD, check_safetensors, check_weights, read_json
from pipelines.progress import Progress
from pipelines.recipe import Recipe
from pipelines.stage import require
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.gates import Report
    from pipelines.models.candidate import Candidate

Form = Literal["adapter", "merged", "gguf"]

EXPORT_VERSION = 1
"""Of the folder's layout and its record."""


@dataclass(frozen=True)
class Exported:
    """A folder that was written, or that stood there already."""

    folder: str
    form: Form
    made: bool
    """False: the same export was there, whole."""
    check: str
    """How the weights were compared with those that were evaluated."""
    bytes: int


@dataclass(frozen=True)
class _Model:
    """What is exported."""

    trained: Path
    """Folder of what training left."""
    base: Path
    """Folder of the base's weights."""
    is_adapter: bool
    content: dict[str, Any]
    """Its lineage."""
    reports: dict[str, "Report"]


def export(
    recipe: Recipe,
    workspace: Workspace,
    form: Form | None = None,
    target: Path | None = None,
    *,
    quantise: str = "q8_0",
    progress: Progress | None = None,
) -> Exported:
    """Write the tuned model that passed its evaluation into a folder, complete or not at all.

    Without a `form` it is what training left: the adapter, or the whole model. Raises GateClosed when evidence is
    missing, UserError when `target` holds something else, StageFailed when what was written answers otherwise.
    """
    from pipelines.models.llama_cpp import find_converter

    progress = progress or Progress(quiet=True)
    model = _evaluated(recipe, workspace)
    form = form or ("adapter" if model.is_adapter else "merged")
    if form == "adapter" and not model.is_adapter:
        raise UserError(
            f"{recipe.name} was trained with method full: there is no adapter.", "Export it with --format merged."
        )
    if form == "gguf":
        find_converter()
    folder = (target or Path(f"{recipe.name}-{form}")).expanduser().resolve()
    record = _record(recipe, model, form, quantise)
    if standing := standing_export(folder, record["export"]):
        progress.say(f"export: the same model is in {folder} already.")
        return _exported(folder, form, False, str(standing["check"]))
    with written_whole(folder) as scratch:
        check, file = _write_weights(model, form, quantise, scratch, progress, recipe.name)
        _write_card(scratch, model, form, file, check)
        write_record(scratch, record | {"check": check})
    return _exported(folder, form, True, check)


def _evaluated(recipe: Recipe, workspace: Workspace) -> _Model:
    """The model of the passing evaluation, its files as they were trained, on this machine."""
    from pipelines.models.candidate import candidates
    from pipelines.stages import load_stage
    from pipelines.tracking.lineage import ancestors, lineage, lineage_gate

    require(load_stage("evaluate"), recipe, workspace)
    found = ancestors(recipe, workspace)
    gate = lineage_gate(found, workspace)
    if gate.verdict is Verdict.CLOSED:
        raise GateClosed(f"{recipe.name}: {gate.evidence}", "Run `sluice train RECIPE --fresh`, then evaluate.")
    reports = {name: report for name, report in found.items() if report is not None}
    tuned: Candidate = candidates(reports["train"], workspace)["tuned"].here(workspace)
    base = candidates(reports["train"], workspace)["base"]
    return _Model(
        trained=Path(tuned.adapter_folder or tuned.base_folder),
        # A whole model needs its base for the record alone.
        base=Path(tuned.base_folder if tuned.adapter_folder else base.base_folder),
        is_adapter=tuned.adapter_folder is not None,
        content=lineage(recipe, reports),
        reports=reports,
    )


def _record(recipe: Recipe, model: _Model, form: Form, quantise: str) -> dict[str, Any]:
    """What the folder says of itself; `export` is what another one must not replace."""
    content, train = model.content, model.content["train"]
    record = {
        "schema_version": EXPORT_VERSION,
        "recipe": recipe.name,
        "form": form,
        **({"quantise": quantise} if form == "gguf" else {}),
        "method": train["method"],
        "base": train["base"],
        "base_revision": train.get("base_revision"),
        "base_fingerprint": train["base_fingerprint"],
        "model_fingerprint": train["model_fingerprint"],
        "chat_template": train.get("chat_template", ""),
        "data": content["data"],
        "reports": {stage: entry["key"] for stage, entry in content["reports"].items()},
        "waivers": content["waivers"],
    }
    return record | {"export": fingerprint(record)}


def _write_weights(
    model: _Model, form: Form, quantise: str, scratch: Path, progress: Progress, name: str
) -> tuple[str, str]:
    """(how the weights were compared, name of the GGUF file if it is one)."""
    if form == "adapter":
        _copy(model.trained, scratch)
        for path in scratch.glob("*.safetensors"):
            check_safetensors(path)
        return "The files are those that were evaluated, byte for byte.", ""
    if form == "merged":
        return _write_whole(model, scratch, progress), ""
    whole = scratch / "whole"
    whole.mkdir()
    check = _write_whole(model, whole, progress)
    file = f"{name}-{quantise}.gguf"
    check += " " + _write_gguf(whole, scratch / file, quantise, model, progress)
    shutil.rmtree(whole)
    return check, file


def _copy(source: Path, target: Path) -> None:
    """The model's files, and no pickle among them; the record is written anew."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in PICKLED and path.name != RECORD:
            shutil.copyfile(path, target / path.name)


def _write_whole(model: _Model, target: Path, progress: Progress) -> str:
    """The whole model in `target`: what was trained, or base and adapter in one."""
    from pipelines.models.companions import write_companions
    from pipelines.models.merging import dtype_of, merge_adapter

    if not model.is_adapter:
        _copy(model.trained, target)
        check_weights(target)
        return "The files are those that were evaluated, byte for byte."
    tokenizer = _tokenizer(model)
    progress.say("export: merging the adapter into the base, and comparing the two ...")
    likeness = merge_adapter(model.base, model.trained, target, _probe(tokenizer))
    write_companions(target, tokenizer, model.base, {})
    progress.say(f"export: the largest difference of a logit is {likeness.largest_difference:.3g}.")
    return (
        f"Merged in float32 and kept in {dtype_of(target)}: on one prompt the logits differ from those of base and "
        f"adapter by {likeness.largest_difference:.3g} at most (the largest is {likeness.largest_logit:.3g})."
    )


def _tokenizer(model: _Model) -> Any:
    """The one that training used: checked against the template that it recorded."""
    from pipelines.models.companions import checked_tokenizer

    return checked_tokenizer(model.base, model.content["train"].get("chat_template", ""))


def _probe(tokenizer: Any) -> list[int]:
    """A prompt as the service would put it."""
    from pipelines.data.chat import prompt_tokens
    from pipelines.models.merging import PROBE

    if not getattr(tokenizer, "chat_template", None):
        return list(tokenizer(PROBE)["input_ids"])
    return prompt_tokens(tokenizer, [{"role": "user", "content": PROBE}])


def _write_gguf(whole: Path, file: Path, quantise: str, model: _Model, progress: Progress) -> str:
    """Convert `whole` into `file`, read it back; how the two compare."""
    from pipelines.models import llama_cpp
    from pipelines.models.load import load_tokenizer
    from pipelines.models.merging import compare, load_weights, logits

    progress.say(f"export: llama.cpp's converter writes {file.name} ...")
    llama_cpp.convert(llama_cpp.find_converter(), whole, file, quantise)
    tokenizer = load_tokenizer(whole)
    template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    llama_cpp.check_file(file, template)
    again = llama_cpp.read_back(file)
    if again is None:
        return "The GGUF file's logits were not compared: transformers does not read this architecture."
    prompt = _probe(tokenizer)
    found = logits(again, prompt)
    del again
    likeness = compare(found, logits(load_weights(whole), prompt), llama_cpp.TOLERANCES[quantise])
    if not likeness.holds:
        raise StageFailed(
            f"{file.name} does not answer as the model that it was made from: a logit differs by "
            f"{likeness.largest_difference:.3g} (the largest is {likeness.largest_logit:.3g}).",
            "Choose a wider type with --quantise f16, or another version of the converter.",
        )
    return (
        f"As {quantise} in the GGUF file, read back, they differ from the whole model's by "
        f"{likeness.largest_difference:.3g} at most (the largest is {likeness.largest_logit:.3g})."
    )


def _write_card(folder: Path, model: _Model, form: Form, file: str, check: str) -> None:
    from pipelines.tracking.model_card import Subject, model_card

    note = read_json(model.base / RECORD) if (model.base / RECORD).is_file() else {}
    config = model.base / "config.json"
    seq2seq = config.is_file() and bool(read_json(config).get("is_encoder_decoder"))
    subject = Subject(form=form, file=file, base=note, is_encoder_decoder=seq2seq, check=check)
    (folder / "README.md").write_text(model_card(subject, model.content, model.reports), encoding="utf-8")


def _exported(folder: Path, form: Form, made: bool, check: str) -> Exported:
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Exported(folder=str(folder), form=form, made=made, check=check, bytes=size)
