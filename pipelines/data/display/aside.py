"""The rows that an audit kept aside, a page at a time, as the workspace's table holds them: masked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import UserError

if TYPE_CHECKING:
    from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Aside:
    """A row that is no example."""

    file: str
    row: int
    """Row or line in the file, from 1."""
    reason: str
    content: str
    """As text, cut where it is long."""


def kept_aside(workspace: "Workspace", dataset: str, offset: int, limit: int) -> tuple[tuple[Aside, ...], int]:
    """(rows from the `offset`-th of the data with this fingerprint, in the order of reading; how many there are)."""
    from sqlalchemy import func, select

    from pipelines.records import QuarantineRow

    own = QuarantineRow.dataset == dataset
    page = select(QuarantineRow).where(own).order_by(QuarantineRow.id).offset(offset).limit(limit)
    with workspace.session() as session:
        total = session.scalar(select(func.count()).where(own)) or 0
        rows = tuple(Aside(row.source, row.position, row.reason, row.content) for row in session.scalars(page))
    return rows, total


def audited_dataset(workspace: "Workspace", recipe_name: str) -> str:
    """Fingerprint of the data that the recipe's newest audit read. Raises UserError when it was never audited."""
    audits = workspace.reports(stage="audit", recipe_name=recipe_name, limit=1)
    if not audits:
        raise UserError(f"{recipe_name}: never audited, so no row was kept aside.", "Run `sluice audit RECIPE` first.")
    return audits[0].fingerprints["dataset"]
