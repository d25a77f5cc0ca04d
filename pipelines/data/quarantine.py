"""The rows that were kept aside, in the workspace's table."""

from typing import TYPE_CHECKING

from pipelines.data.example import BadRow

if TYPE_CHECKING:
    from pipelines.workspace import Workspace


def keep_aside(workspace: "Workspace", dataset: str, rows: list[BadRow]) -> None:
    """Store the bad rows of the data with the fingerprint `dataset`, in place of what was stored for it."""
    from sqlalchemy import delete

    from pipelines.records import QuarantineRow

    with workspace.session() as session:
        session.execute(delete(QuarantineRow).where(QuarantineRow.dataset == dataset))
        session.add_all(
            QuarantineRow(
                dataset=dataset, source=row.file, position=row.position, reason=row.reason, content=row.content
            )
            for row in rows
        )
