"""The candidates of a recipe: its base and what training made of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.errors import UserError
from pipelines.fingerprint import short
from pipelines.models.files import RECORD, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.gates import Report
    from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Candidate:
    """A model under consideration, in folders of the machine that made this; `here` finds them on another."""

    name: str
    """`base` or `tuned`."""
    base_folder: str
    """Weights and tokenizer."""
    adapter_folder: str | None
    """PEFT adapter over the base, or None."""
    fingerprint: str
    model_id: str
    """What clients of the service call it."""
    base: str = ""
    """The base's name in the recipe."""
    base_revision: str | None = None
    """What was fetched of it."""
    base_fingerprint: str = ""
    """Of the base's files."""
    model: str = ""
    """Address of the trained weights in storage; empty for the base."""
    chat_template: str = ""
    """SHA-256 of the template that it was trained with; empty where nobody recorded it."""

    def here(self, workspace: "Workspace") -> "Candidate":
        """The same candidate in folders of this machine: those recorded where they exist, else found or fetched.

        Raises UserError when this machine cannot get at them, has another base, or a tokenizer that would put
        conversations otherwise than training did.
        """
        found = self._found(workspace)
        if found.chat_template:
            from pipelines.models.companions import checked_tokenizer

            checked_tokenizer(found.base_folder, found.chat_template)
        return found

    def _found(self, workspace: "Workspace") -> "Candidate":
        if self.model and self.adapter_folder is None:
            return replace(self, base_folder=self._model_here(self.base_folder, workspace))
        from pipelines.models.load import base_here

        found = base_here(self.base_folder, self.base, self.base_revision, self.base_fingerprint, workspace.settings)
        adapter = self.adapter_folder and self._model_here(self.adapter_folder, workspace)
        return replace(self, base_folder=str(found), adapter_folder=adapter)

    def _model_here(self, recorded: str, workspace: "Workspace") -> str:
        if Path(recorded).is_dir():
            return recorded
        folder = workspace.fetch(self.model or recorded)
        if not folder.is_dir():
            raise UserError(
                f"{self.name}: its weights at {folder} are not on this machine.",
                "Set SLUICE_STORAGE to storage that every machine reaches (s3://, gs:// or a shared folder).",
            )
        return str(folder)


def candidates(train_report: "Report", workspace: "Workspace") -> dict[Literal["base", "tuned"], Candidate]:
    """Base and tuned of a train report; what storage holds remotely is fetched to this machine."""
    return candidates_of(train_report.produced, train_report.recipe_name, workspace)


def candidates_of(
    produced: "Mapping[str, str]", recipe_name: str, workspace: "Workspace"
) -> dict[Literal["base", "tuned"], Candidate]:
    """The same from what a train report left behind, as a deployment keeps it.

    Raises UserError for an adapter that was trained over other weights.
    """
    folder = str(workspace.fetch(produced["model"]))
    full = produced["method"] == "full"
    if not full:
        check_adapter(Path(folder), produced["base_fingerprint"])
    base = base_of(produced, recipe_name)
    tuned = replace(
        base,
        name="tuned",
        base_folder=folder if full else base.base_folder,
        adapter_folder=None if full else folder,
        fingerprint=produced["model_fingerprint"],
        model_id=f"{recipe_name}-tuned",
        model=produced["model"],
    )
    return {"base": base, "tuned": tuned}


def base_of(produced: "Mapping[str, str]", recipe_name: str) -> Candidate:
    """The base alone, for which nothing that was trained is needed."""
    return Candidate(
        "base",
        produced["base_folder"],
        None,
        produced["base_fingerprint"],
        f"{recipe_name}-base",
        produced["base"],
        produced.get("base_revision"),
        produced["base_fingerprint"],
        chat_template=produced.get("chat_template", ""),
    )


def check_adapter(folder: Path, base_fingerprint: str) -> None:
    """Raise UserError unless the adapter in `folder` was trained over the base with this fingerprint."""
    trained_over = str(read_json(folder / RECORD).get("base_fingerprint"))
    if trained_over != base_fingerprint:
        raise UserError(
            f"{folder}: this adapter belongs to another base ({short(trained_over)}, not {short(base_fingerprint)}).",
            "Use the base that it was trained over, or train anew.",
        )
