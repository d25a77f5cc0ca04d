"""Where a search may begin: the winners of earlier sweeps over the same base."""

from typing import Any

from pipelines.workspace import Workspace


def winners_before(workspace: Workspace, base: str, objective: str, count: int) -> list[dict[str, Any]]:
    """Values of the winners of the last `count` sweeps over the base of that fingerprint, the newest first.

    Each once; of sweeps that learnt the same objective. Which of the values fit this search is the search's to say.
    """
    found: list[dict[str, Any]] = []
    for report in workspace.reports(stage="sweep") if count else ():
        values = report.figures.get("winner", {}).get("values", {})
        alike = report.fingerprints.get("base") == base and report.recipe["train"].get("objective", "sft") == objective
        if alike and values and values not in found:
            found.append(values)
        if len(found) == count:
            break
    return found
