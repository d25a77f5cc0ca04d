"""The rows that were kept aside, in the workspace's table."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from pipelines.data.example import shown
from pipelines.data.privacy.private import RULED, mask_private

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.workspace import Workspace

BATCH = 5000
"""Rows that are inserted together."""


def keep_aside(workspace: "Workspace", dataset: str, bad: "pa.Table", kinds: Collection[str] = ()) -> None:
    """Store the bad rows (fields of BadRow) of the data with the fingerprint `dataset`, in place of what was there.

    Personal data and secrets in them are masked, of these `kinds` beside the ones that rules find: the panel shows
    these rows, and the file still holds them.
    """
    hidden = {*RULED, *kinds}
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
                        "reason": shown(mask_private(row["reason"], hidden)),
                        "content": shown(mask_private(row["content"], hidden)),
                    }
                    for row in batch.to_pylist()
                ],
            )
