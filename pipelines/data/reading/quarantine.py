"""The rows that were kept aside, in the workspace's table."""

from typing import TYPE_CHECKING

from pipelines.data.example import shown
from pipelines.data.privacy.private import mask_private

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.workspace import Workspace

BATCH = 5000
"""Rows that are inserted together."""


def keep_aside(workspace: "Workspace", dataset: str, bad: "pa.Table") -> None:
    """Store the bad rows (fields of BadRow) of the data with the fingerprint `dataset`, in place of what was there.

    Personal data and secrets in them are masked: the panel shows these rows, and the file still holds them.
    """
    from sqlalchemy import delete, insert

    from pipelines.records import QuarantineRow

    with workspace.session() as session:
        session.execute(delete(QuarantineRow).where(QuarantineRow.dataset == dataset))
        for batch in bad.to_batches(max_chunksize=BATCH):
            session.execute(
                insert(QuarantineRow),
                [
                    {
                        "dataset": dataset,
                        "source": row["file"],
                        "position": row["position"],
                        "reason": shown(mask_private(row["reason"])),
                        "content": shown(mask_private(row["content"])),
                    }
                    for row in batch.to_pylist()
                ],
            )
