"""Every read of the data pages, and the one thing that people decide there: keep or drop a suspect."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.errors import UserError
from pipelines.data.corpus import Corpus
from pipelines.data.display.audit_page import masked_kinds
from pipelines.data.display.browse import Filters, Page, Row
from pipelines.data.display.queues import Cluster, Repeats
from pipelines.data.display.view import Sides, View
from pipelines.data.evidence import Evidence
from pipelines.gates import Report
from ui.panel.backend import from_database, known, workspace
from ui.panel.last_known import Known

if TYPE_CHECKING:
    from pipelines.data.display.aside import Aside
    from pipelines.data.versioned.ledger import Fit
    from pipelines.data.versioned.versions import Difference, Version
    from pipelines.review import Choice, Decision

T = TypeVar("T")
REBUILD = "Run `sluice audit RECIPE --fresh` on this machine."
RESPLIT = "Run `sluice split RECIPE`, or look at the storage."
DIFFERENT = 20
"""Rows of a kind that a comparison of two versions lists."""
PAIRS = 10
"""Leaks on a page."""


@dataclass(frozen=True)
class Opened:
    """A recipe's data as far as they are known here."""

    recipe_name: str
    audit: Report
    split: Report | None
    """The newest, of whatever audit."""
    here: bool
    """Whether this machine holds the corpus and the evidence that the audit left."""

    @property
    def page(self) -> Path | None:
        """The audit as one HTML file, where it is."""
        path = Path(self.audit.produced.get("page", ""))
        return path if path.is_file() else None


@dataclass(frozen=True)
class Offered:
    """What the filters offer: values with their rows, the commonest first."""

    columns: dict[str, list[tuple[str, int]]]
    suspects: list[tuple[str, int]]
    private: list[tuple[str, int]]
    sides: tuple[str, ...]


@dataclass(frozen=True)
class Reviewed:
    """A page of the review queue."""

    rows: tuple[Row, ...]
    total: int
    """Rows of this kind that wait, or all of them where decided ones are shown too."""
    decided: "dict[str, Decision]"
    """By example id, of all that were decided."""
    kinds: list[tuple[str, int]]


@dataclass(frozen=True)
class LeakPair:
    """Two examples that leak into one another."""

    kind: str
    similarity: float
    left: Row | None
    right: Row | None
    """None: the example is not in the corpus that this machine holds (a benchmark's, or an earlier one)."""
    ids: tuple[str, str]


def opened(recipe_name: str) -> Known[Opened | None]:
    """The newest audit and split of this recipe; the value is None when it was never audited."""

    def read() -> Opened | None:
        audits = workspace().reports(stage="audit", recipe_name=recipe_name, limit=1)
        if not audits:
            return None
        splits = workspace().reports(stage="split", recipe_name=recipe_name, limit=1)
        left = audits[0].produced
        marks = Path(left.get("corpus", "")) / "corpus.json", Path(left.get("evidence", "")) / "evidence.json"
        return Opened(recipe_name, audits[0], splits[0] if splits else None, all(mark.is_file() for mark in marks))

    return from_database(("data", recipe_name), read)


def page(data: Opened, filters: Filters, offset: int, limit: int) -> Known[Page]:
    """Rows that pass the filters."""
    from pipelines.data.display.browse import page_of

    return _look(data, ("page", filters, offset, limit), lambda view: page_of(view, filters, offset, limit))


def row(data: Opened, number: int) -> Known[Row | None]:
    """One row; the value is None when there is none of this number."""
    from pipelines.data.display.browse import rows_of

    return _look(
        data,
        ("row", number),
        lambda view: rows_of(view, [number])[0] if 0 <= number < len(view.corpus) else None,
    )


def offered(data: Opened) -> Known[Offered]:
    """What can be filtered by."""
    from pipelines.data.display.view import choices, kinds_of

    def read(view: View) -> Offered:
        columns = {name: choices(view, name) for name in ("source", "label", "language")}
        sides = view.sides.names if view.sides else ()
        return Offered(columns, kinds_of(view, "suspects"), kinds_of(view, "private"), sides)

    return _look(data, "offered", read)


def clusters(data: Opened, repeats: Repeats, offset: int, limit: int) -> Known[tuple[tuple[Cluster, ...], int]]:
    """Clusters, the largest first, and how many there are."""
    from pipelines.data.display.queues import clusters_of

    key = ("clusters", repeats, offset, limit)
    return _look(data, key, lambda view: clusters_of(view, repeats, offset, limit))


def cluster(data: Opened, number: int) -> Known[Cluster | None]:
    """One cluster; the value is None when there is none of this number."""
    from pipelines.data.display.queues import cluster_of

    def read(view: View) -> Cluster | None:
        there = 0 <= number < len(view.corpus) and int(view.evidence.cluster[number]) == number
        return cluster_of(view, number) if there else None

    return _look(data, ("cluster", number), read)


def queue(data: Opened, kind: str | None, offset: int, limit: int, *, decided_too: bool) -> Known[Reviewed]:
    """Suspects of a kind (None: of any), the worst first, with what people decided."""
    import numpy as np

    from pipelines.data.display.queues import suspects_of
    from pipelines.data.display.view import kinds_of

    decided = decisions(data.recipe_name)

    def read(view: View) -> Reviewed:
        done = decided.value or {}
        without = np.zeros(0, np.int64) if decided_too else view.corpus.rows_with_ids(list(done))
        found = suspects_of(view, kind, offset, limit, without=without)
        return Reviewed(found.rows, found.total, done, kinds_of(view, "suspects"))

    found = _look(data, ("queue", kind, offset, limit, decided_too), read)
    return Known(found.value, found.read_at, found.problem or decided.problem)


def decisions(recipe_name: str) -> "Known[dict[str, Decision]]":
    """Example id -> its newest decision."""

    def read() -> "dict[str, Decision]":
        from pipelines import review

        return review.decisions(workspace(), recipe_name)

    return from_database(("reviews", recipe_name), read)


def decide(recipe_name: str, row: Row, decision: "Choice", by: str, because: str) -> None:
    """Record what a person decided; the same once more (a double click) leaves one record.

    Raises UserError when it cannot be recorded.
    """
    from pipelines import review

    before = (decisions(recipe_name).value or {}).get(row.id)
    if before is None or (before.decision, before.by, before.because) != (decision, by, because):
        kinds = [one.kind for one in row.suspicions]
        review.decide(workspace(), recipe_name, {row.id: kinds}, decision, by=by, because=because)


def leaks(data: Opened, offset: int) -> Known[tuple[tuple[LeakPair, ...], int | None]]:
    """The leaks that the last split found, from the `offset`-th, and how many are kept; None: no longer any list."""
    from pipelines.data.display.browse import rows_of
    from pipelines.data.display.view import rows_with_ids

    def read(view: View) -> tuple[tuple[LeakPair, ...], int | None]:
        # The split's own evidence: it may be of an earlier audit than the newest.
        produced = data.split.produced if data.split else {}
        folder = Path(produced.get("evidence", view.evidence.folder))
        table = Evidence(folder).leaks(produced.get("split", ""))
        if table is None:
            return (), None
        shown = table.slice(offset, PAIRS).to_pylist()
        there = rows_with_ids(view.corpus, [one[side] for one in shown for side in ("left", "right")])
        numbers = sorted(set(there.values()))
        rows = dict(zip(numbers, rows_of(view, numbers), strict=True))
        pairs = tuple(
            LeakPair(
                one["kind"],
                one["similarity"],
                rows.get(there.get(one["left"], -1)),
                rows.get(there.get(one["right"], -1)),
                (one["left"], one["right"]),
            )
            for one in shown
        )
        return pairs, len(table)

    return _look(data, ("leaks", offset), read)


def aside(data: Opened, offset: int, limit: int) -> "Known[tuple[tuple[Aside, ...], int]]":
    """Rows that the audit kept aside, from the `offset`-th, and how many there are."""

    def read() -> "tuple[tuple[Aside, ...], int]":
        from pipelines.data.display.aside import kept_aside

        return kept_aside(workspace(), data.audit.fingerprints["dataset"], offset, limit)

    return from_database(("aside", data.audit.key, offset, limit), read, "The rows that were kept aside")


def fits(split: Report) -> "Known[list[Fit]]":
    """What was fitted to rows of this split's table, of whatever version, the newest first."""

    def read() -> "list[Fit]":
        from pipelines.data.versioned.ledger import check_fits

        return check_fits(workspace(), split.produced.get("table", ""))[::-1]

    return from_database(("fits", split.key), read, "The ledger")


def versions(split: Report) -> "Known[list[Version]]":
    """The versions of this split's table, the newest first."""
    from pipelines.data.versioned.versions import log

    table = split.produced.get("table", "")
    return known.read(("versions", table), "The split's table", RESPLIT, lambda: log(table))


def difference(split: Report, before: int, after: int) -> "Known[Difference]":
    """What happened to the rows from one version to another."""
    from pipelines.data.versioned.versions import diff

    table = split.produced.get("table", "")
    kinds = ((split.recipe.get("audit") or {}).get("private") or {}).get("kinds") or ()
    return known.read(
        ("diff", table, before, after),
        "The split's table",
        RESPLIT,
        lambda: diff(table, before, after, DIFFERENT, kinds),
    )


def _look(data: Opened, key: Any, read: Callable[[View], T]) -> Known[T]:
    """What `read` finds in the data of that audit and split."""
    split = data.split.key if data.split else ""
    return known.read(
        ("data", workspace().settings, data.audit.key, split, key), "The corpus", REBUILD, lambda: read(_view(data))
    )


def _view(data: Opened) -> View:
    # The corpus anew each time: readers of several threads do not share a file. What is kept of it are arrays.
    corpus = Corpus(Path(data.audit.produced["corpus"]))
    folder = Path(data.audit.produced["evidence"])
    evidence = _evidence(str(folder), (folder / "evidence.json").stat().st_mtime_ns)
    view = View(corpus, evidence, masked_kinds(data.audit.recipe))
    if data.split is None:
        return view
    table, version = data.split.produced.get("table", ""), int(data.split.produced.get("version", -1))
    try:
        sides = _sides(*view.stamp[:2], table, version)
    except UserError:
        # The table is gone from its place: the rows are shown without their sides, until it is back.
        sides = None
    return View(corpus, evidence, view.masked, sides)


@lru_cache(maxsize=4)
def _evidence(folder: str, stamp: int) -> Evidence:
    return Evidence(Path(folder))


@lru_cache(maxsize=4)
def _sides(folder: str, stamp: int, table: str, version: int) -> Sides:
    from pipelines.data.display.view import sides_of

    return sides_of(Corpus(Path(folder)), table, version)
