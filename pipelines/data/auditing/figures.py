"""The figures of an audit: plain values, small whatever the size of the data."""

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.suspicion import Suspicion
from pipelines.data.auditing.samples import masked
from pipelines.data.auditing.survey import NAMES, SIZE_BOUNDS, RandomSplit, Survey, commonest, histogram, lengths
from pipelines.data.auditing.tokens import token_figures
from pipelines.data.sides.times import microseconds

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

WHO = ("source", "collector", "annotator")
LISTED = 50
"""Combinations of source, collector and annotator, and labels, that are listed."""


def figures_of(
    survey: Survey, suspicion: Suspicion, random_split: RandomSplit, context_sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Name -> figure; units in the names. Words and tokens are of unique examples, all others of rows.

    What people decided to leave out is in the data still, and counts for nothing in `human_annotated`, the suspects,
    the labels in doubt and what is private.
    """
    return (
        _rows(survey)
        | _repeats(survey, random_split)
        | _conversations(survey)
        | token_figures(survey, context_sizes)
        | _origins(survey)
        | _doubts(survey, suspicion)
    )


def _rows(survey: Survey) -> dict[str, Any]:
    import pyarrow.compute as pc

    corpus, bad = survey.corpus, survey.corpus.bad
    broken = bad.filter(pc.equal(bad["kind"], "file"))
    aside = bad.filter(pc.not_equal(bad["kind"], "file"))
    kinds = Counter(aside["kind"].to_pylist())
    return {
        "rows": survey.rows + len(aside),
        "readable_rows": survey.rows,
        "quarantined_rows": len(aside),
        "quarantined": dict(sorted(kinds.items())),
        "unreadable_files": [masked(name, 200) for name in broken["file"].to_pylist()[:LISTED]],
        "left_out_rows": corpus.note.left_out,
        "dropped_rows": len(survey.dropped),
        # A row that is kept aside is a different row too: what was found is what is counted.
        "unique_rows": len(survey.first) + pc.count_distinct(aside["content"]).as_py(),
        "unique_examples": len(survey.first),
        "human_annotated": survey.by_people,
        "read_by": corpus.note.driver,
    }


def _repeats(survey: Survey, random_split: RandomSplit) -> dict[str, Any]:
    sizes, group = survey.cluster_sizes, survey.corpus.numbers("group")
    rows, _ = survey.most_common_answer
    return {
        "duplicate_rows": survey.rows - len(survey.first),
        "near_duplicate_rows": len(survey.first) - len(sizes),
        "duplicate_share": round((survey.rows - len(sizes)) / survey.rows, 6),
        "clusters": len(sizes),
        "largest_cluster_rows": int(sizes.max()),
        "cluster_sizes": _sizes(sizes),
        "groups": len(set(group[group >= 0].tolist())),
        "ungrouped_rows": int((group < 0).sum()),
        "most_common_answer": {"text": masked(survey.common_answer, 400, survey.kinds), "count": len(rows)},
        "random_split_leak_share": round(random_split.leak_share, 6),
        "random_split_group_share": round(random_split.group_share, 6),
        "random_split_test_rows": random_split.test_rows,
    }


def _sizes(sizes: "NDArray[np.int64]") -> list[dict[str, int | None]]:
    """The histogram of cluster sizes: `count` clusters with `rows` rows."""
    # Each cluster has a row at least: the first bar begins at 1.
    bars: list[dict[str, Any]] = [bar | {"from": max(bar["from"] or 0, 1)} for bar in histogram(sizes, SIZE_BOUNDS)]
    for bar in bars:
        inside = (sizes >= bar["from"]) & (sizes <= (bar["to"] or sizes.max()))
        bar["rows"] = int(sizes[inside].sum())
    return bars


def _conversations(survey: Survey) -> dict[str, Any]:
    corpus, first = survey.corpus, survey.first
    return {
        "prompt_words": lengths(corpus.array("prompt_words")[first]),
        "answer_words": lengths(corpus.array("answer_words")[first]),
        "roles": _named(corpus.column("roles"), survey.rows),
        "turns": {str(count): rows for count, rows in commonest(corpus.column("turns"))},
        "languages": _named(corpus.column("language"), survey.rows, "not told") if _has(survey, "language") else [],
        "special_token_rows": int(corpus.array("special").sum()),
        "preference_rows": survey.rows - corpus.column("rejected").null_count,
    }


def _origins(survey: Survey) -> dict[str, Any]:
    corpus = survey.corpus
    labels = corpus.column("label").drop_null()
    return {
        **{f"{name}s": _named(corpus.column(name), 0, "not named") for name in WHO},
        **_combinations(survey),
        "labels": _named(labels, survey.rows, most=LISTED),
        "unlabelled_rows": survey.rows - len(labels),
        "time_range": _times(survey),
    }


def _combinations(survey: Survey) -> dict[str, Any]:
    """How often each source, collector and annotator stand together."""
    import numpy as np

    columns = [survey.corpus.codes(name) for name in WHO]
    table = np.stack([codes for codes, _ in columns], axis=1)
    found, counts = np.unique(table, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LISTED]
    origins = [
        {
            name: masked(str(values[code]), 120) if code >= 0 else None
            for name, code, (_, values) in zip(WHO, found[place].tolist(), columns, strict=True)
        }
        | {"rows": int(counts[place])}
        for place in order
    ]
    return {"origins": origins, "origin_combinations": len(found)}


def _times(survey: Survey) -> dict[str, Any] | None:
    """First and last `created_at`, and the rows of each month (or year); of those that a split by time could read."""
    import numpy as np

    codes, values = survey.corpus.codes("created_at")
    moments = [_moment(value) for value in values]
    rows = np.bincount(codes[codes >= 0], minlength=len(values)).tolist()
    told = [(moment, count) for moment, count in zip(moments, rows, strict=True) if moment and count]
    if not told:
        return None
    months: Counter[str] = Counter()
    for moment, count in told:
        months[f"{moment:%Y-%m}"] += count
    periods = dict(sorted(months.items()))
    if len(periods) > 240:
        years: Counter[str] = Counter()
        for month, count in periods.items():
            years[month[:4]] += count
        periods = dict(sorted(years.items())[:240])
    return {
        "first": _shown_moment(min(moment for moment, _ in told)),
        "last": _shown_moment(max(moment for moment, _ in told)),
        "rows_without": survey.rows - sum(count for _, count in told),
        "rows_by_period": [{"period": period, "rows": count} for period, count in periods.items()],
    }


def _moment(text: str) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(text))
    except (ValueError, OverflowError):
        return None


def _shown_moment(moment: datetime) -> str:
    """The day, and the time where one was told."""
    return f"{moment:%Y-%m-%d}" if moment.time() == time() else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _doubts(survey: Survey, suspicion: Suspicion) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    private, staying = survey.private, int(survey.stays.sum())
    kinds = {
        kind: len(np.unique(private.filter(pc.equal(private["kind"], kind))["row"].to_numpy()))
        for kind in sorted(set(private["kind"].unique().to_pylist()))
    }
    return {
        "suspects": suspicion.by_kind,
        "suspect_rows": suspicion.rows,
        "suspect_share": round(suspicion.rows / max(1, staying), 6),
        "reviewed_keep_rows": suspicion.kept,
        "reviewed_drop_rows": suspicion.dropped,
        "anomalies": survey.evidence.note.anomalies,
        "label_noise": suspicion.label_noise,
        "private": kinds,
        "private_rows": len(np.unique(private["row"].to_numpy())),
    }


def _named(column: "pa.ChunkedArray", rows: int, missing: str = "not named", most: int = NAMES) -> list[dict[str, Any]]:
    """The commonest values with their rows, and their share of `rows` where that is given."""
    return [
        {"name": masked(value or missing), "rows": count} | ({"share": round(count / rows, 6)} if rows else {})
        for value, count in commonest(column, most)
    ]


def _has(survey: Survey, column: str) -> bool:
    return column in survey.corpus.columns
