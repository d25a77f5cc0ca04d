"""The candidates of a recipe: its base and what training made of it."""

from dataclasses import dataclass
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
    """A model under consideration, in folders of this machine."""

    name: str
    """`base` or `tuned`."""
    base_folder: str
    """Weights and tokenizer."""
    adapter_folder: str | None
    """PEFT adapter over the base, or None."""
    fingerprint: str
    model_id: str
    """What clients of the service call it."""


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
    name = recipe_name
    return {
        "base": Candidate("base", produced["base_folder"], None, produced["base_fingerprint"], f"{name}-base"),
        "tuned": Candidate(
            "tuned",
            folder if full else produced["base_folder"],
            None if full else folder,
            produced["model_fingerprint"],
            f"{name}-tuned",
        ),
    }


def check_adapter(folder: Path, base_fingerprint: str) -> None:
    """Raise UserError unless the adapter in `folder` was trained over the base with this fingerprint."""
    trained_over = str(read_json(folder / RECORD).get("base_fingerprint"))
    if trained_over != base_fingerprint:
        raise UserError(
            f"{folder}: this adapter belongs to another base ({short(trained_over)}, not {short(base_fingerprint)}).",
            "Use the base that it was trained over, or train anew.",
        )
