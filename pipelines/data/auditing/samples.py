"""A few rows for people to look at: short, storable, personal data and secrets masked."""

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.example import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.auditing.survey import Survey

SAMPLES = 5
"""Rows that a finding shows."""
SHORT = 80
"""Characters of a prompt or an answer."""


def masked(text: str, limit: int = 160, kinds: Collection[str] = ()) -> str:
    """The text for a report: cut at `limit` characters, whatever is private in it replaced by its kind.

    `kinds`: those that the recipe looks for, beside the ones that rules find.
    """
    from pipelines.data.privacy.private import RULED, mask_private

    # Masked before it is cut, lest half an address stays; what is far beyond the cut is not looked at.
    return shown(mask_private(text[: 10 * limit + 2000], {*RULED, *kinds}), limit)


def sample_rows(
    survey: "Survey", rows: "Sequence[int] | NDArray[np.int64]", columns: Sequence[str] = ()
) -> tuple[dict[str, Any], ...]:
    """Id (its beginning), file, row, prompt and answer of these rows, and further columns."""
    from pipelines.data.profile import answer_of, prompt_of

    table = survey.corpus.take(rows, ["id", "file", "position", "messages", *columns])
    samples = []
    for row in table.to_pylist():
        turns = json.loads(row["messages"])
        samples.append(
            {
                "id": row["id"][:12],
                "file": row["file"],
                "row": row["position"],
                "prompt": masked(prompt_of(turns, survey.instruction), SHORT, survey.kinds),
                "answer": masked(answer_of(turns), SHORT, survey.kinds),
            }
            | {name: masked(str(row[name]), SHORT) for name in columns}
        )
    return tuple(samples)
