"""What was fitted to which rows of a split: the proof that everything learnt from the training side alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cluster.errors import StageFailed
from pipelines.data.packing import drawn
from pipelines.data.sides.past import lookup
from pipelines.data.sides.splitting import HELD_OUT, SIDES
from pipelines.data.versioned.table import read_version
from pipelines.fingerprint import fingerprint
from pipelines.gates import Report
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

WEIGHTS, STOPPING, CHOICE = "model weights", "early stopping", "choice of hyper-parameters"
IN_FOLD = " within the training side"
"""Of what watches one of its folds, while the others are learnt from."""
ALLOWED = {
    WEIGHTS: ("train",),
    STOPPING: ("validation",),
    STOPPING + IN_FOLD: ("train",),
    CHOICE: ("validation",),
    CHOICE + IN_FOLD: ("train",),
}
"""Transform -> the sides that it may see; any other may see all but the test side."""
NOWHERE = "not in the split"


@dataclass(frozen=True)
class Fit:
    """Something that was fitted to rows of a version of a split."""

    version: int
    """Of the table."""
    transform: str
    side: str
    """On which side its rows stand, by the table itself; several are named with a comma between."""
    rows: int
    ids: str
    """Fingerprint of the ids of its rows."""
    recipe_name: str
    created_at: datetime
    problem: str | None
    """Why it must not be, in a sentence; None: it saw what it may."""


def record_fit(
    workspace: Workspace,
    recipe_name: str,
    table: str,
    version: int,
    transform: str,
    side: str,
    ids: "Sequence[str] | pa.Array",
) -> None:
    """Write down that `transform` was fitted to the examples `ids`, which the caller read as `side`.

    On which side they stand is looked up in the table: what is written down is that. One that is there already is
    not written again. Raises StageFailed when the rows are not of the side that the caller took them for, after it
    was written down: nothing that learnt from other rows goes further.
    """
    import pyarrow as pa
    from sqlalchemy import select

    from pipelines.records import FitRow

    seen = pa.array(ids, pa.string()).unique().sort()
    found = _sides_of(seen, table, version)
    values = {
        "table_uri": table,
        "version": version,
        "transform": transform,
        "side": found,
        "rows": len(seen),
        "ids": fingerprint(seen.to_pylist()),
        "recipe_name": recipe_name,
    }
    with workspace.session() as session:
        if session.scalars(select(FitRow).filter_by(**values).limit(1)).first() is None:
            session.add(FitRow(**values))
    if found != side:
        raise StageFailed(
            f"{recipe_name}: {transform} was fitted to rows of {found}, not of {side} alone (version {version} of "
            f"{table}).",
            "`sluice data ledger RECIPE` shows it; run `sluice split RECIPE --fresh` and train again.",
        )


def record_bins(workspace: Workspace, recipe_name: str, split: Report, address: str, fold: int | None = None) -> None:
    """Write down what a training reads: of the bins at `address`, made from `split`, whose rows are in them.

    Weights learn from the file of the training side, and the other one says when to stop (see `record_fit`). With
    `fold` that one holds a fold of the training side, which the first then has nothing of.
    """
    learnt, watched = (_ids_of_bins(workspace, address, side) for side in ("train", "validation"))
    _record_ids(workspace, recipe_name, split, WEIGHTS, "train", learnt)
    _record_ids(workspace, recipe_name, split, *_watching(STOPPING, fold), watched)


def record_choice(
    workspace: Workspace,
    recipe_name: str,
    split: Report,
    address: str,
    seed: int,
    bins: int,
    fold: int | None = None,
) -> None:
    """Write down what the trials of a sweep were compared on: `bins` of the validation side's, drawn by the seed.

    Hyper-parameters that were chosen by a loss are fitted to the rows that it is of.
    """
    held = _ids_of_bins(workspace, address, "validation")
    chosen = held.take(drawn(len(held), seed, bins))
    _record_ids(workspace, recipe_name, split, *_watching(CHOICE, fold), chosen)


def _watching(transform: str, fold: int | None) -> tuple[str, str]:
    """(transform, side) of what watches the examples that validate."""
    return (transform, "validation") if fold is None else (transform + IN_FOLD, "train")


def _ids_of_bins(workspace: Workspace, address: str, side: str) -> "pa.ChunkedArray":
    import pyarrow as pa

    file = workspace.fetch(address) / f"{side}.arrow"
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()["ids"]


def _record_ids(
    workspace: Workspace, recipe_name: str, split: Report, transform: str, side: str, held: "pa.ChunkedArray"
) -> None:
    import pyarrow as pa

    ids = pa.concat_arrays([pa.array([], pa.string()), *(chunk.flatten() for chunk in held.chunks)])
    record_fit(workspace, recipe_name, split.produced["table"], int(split.produced["version"]), transform, side, ids)


def check_fits(workspace: Workspace, table: str, version: int | None = None) -> list[Fit]:
    """Everything that was fitted to this version of the split (or to any), oldest first, each with what is wrong.

    A transform sees one side. Weights learn from training, early stopping and the choice of hyper-parameters watch
    validation, and nothing at all is fitted to the test side.
    """
    from sqlalchemy import select

    from pipelines.records import FitRow

    query = select(FitRow).where(FitRow.table_uri == table).order_by(FitRow.id)
    if version is not None:
        query = query.where(FitRow.version == version)
    with workspace.session() as session:
        return [
            Fit(
                row.version,
                row.transform,
                row.side,
                row.rows,
                row.ids,
                row.recipe_name,
                row.created_at,
                problem_of(row.transform, row.side),
            )
            for row in session.scalars(query)
        ]


def problem_of(transform: str, side: str) -> str | None:
    """Why `transform` must not have seen `side`, or None."""
    allowed = ALLOWED.get(transform, SIDES[:2])
    if side in allowed:
        return None
    return f"{transform} saw {side}; it may see {' or '.join(allowed)} alone."


def _sides_of(ids: "pa.Array", table: str, version: int) -> str:
    """The sides on which these ids stand, in the order of the sides."""
    import pyarrow as pa

    held = read_version(table, version, ("id", "split"))
    places, known = lookup(ids, held["id"])
    sides = set(held["split"].take(pa.array(places)).unique().to_pylist())
    ordered = [side for side in (*SIDES, HELD_OUT) if side in sides]
    return ", ".join([*ordered, *([NOWHERE] if not known.all() else [])])
