"""The candidates of a recipe: its base and what training made of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """The same from what a train report left behind, as a deployment keeps it."""
    folder = str(workspace.fetch(produced["model"]))
    full = produced["method"] == "full"
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
