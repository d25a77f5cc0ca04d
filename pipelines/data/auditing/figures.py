"""The figures of an audit: plain values, small whatever the size of the data."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from pipelines.data.anomaly.suspicion import Suspicion
from pipelines.data.auditing.samples import masked
from pipelines.data.auditing.survey import NAMES, SIZE_BOUNDS, TOKEN_BOUNDS, Survey, commonest, histogram, lengths

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

WHO = ("source", "collector", "annotator")
LISTED = 50
"""Combinations of source, collector and annotator, and labels, that are listed."""


def figures_of(
    survey: Survey, suspicion: Suspicion, random_split: dict[str, float], context_sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Name -> figure; units in the names. Words and tokens are of unique examples, all others of rows."""
    return (
        _rows(survey)
        | _repeats(survey, random_split)
        | _conversations(survey)
        | _tokens(survey, context_sizes)
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
        # A row that is kept aside is a different row too: what was found is what is counted.
        "unique_rows": len(survey.first) + pc.count_distinct(aside["content"]).as_py(),
        "unique_examples": len(survey.first),
        "human_annotated": survey.by_people,
        "read_by": corpus.note.driver,
    }


def _repeats(survey: Survey, random_split: dict[str, float]) -> dict[str, Any]:
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
        "random_split_leak_share": round(random_split["leak_share"], 6),
        "random_split_group_share": round(random_split["group_share"], 6),
        "random_split_test_rows": random_split["test_rows"],
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


def _tokens(survey: Survey, context_sizes: tuple[int, ...]) -> dict[str, Any]:
    """By the base's own tokenizer, None where it is not on this machine; the share of rows beyond each context size."""
    counted = survey.corpus.column("tokens").drop_null().to_numpy()
    if survey.corpus.note.tokenizer is None or not len(counted):
        return {"tokens": None, "over_length": {}}
    of_unique = survey.corpus.column("tokens").take(survey.first).drop_null().to_numpy()
    return {
        "tokens": {
            "tokenizer": survey.corpus.note.tokenizer,
            "total": int(counted.sum()),
            "uncounted_rows": survey.rows - len(counted),
            **lengths(of_unique, TOKEN_BOUNDS),
        },
        "over_length": {str(size): _share((counted > size).sum(), survey) for size in sorted(context_sizes)},
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
    """First and last `created_at`, and the rows of each month (or year); of those that begin as ISO dates do."""
    import pyarrow as pa
    import pyarrow.compute as pc

    given = survey.corpus.column("created_at").combine_chunks()
    dates = given.filter(pc.match_substring_regex(given, r"^\d{4}-\d\d-\d\d"))
    if not len(dates):
        return None
    months = dict(sorted(commonest(pa.chunked_array([pc.utf8_slice_codeunits(dates, 0, 7)]), len(dates))))
    if len(months) > 240:
        years: Counter[str] = Counter()
        for month, count in months.items():
            years[str(month)[:4]] += count
        months = dict(sorted(years.items())[:240])
    bounds = pc.min_max(dates).as_py()
    return {
        "first": bounds["min"],
        "last": bounds["max"],
        "rows_without": survey.rows - len(dates),
        "rows_by_period": [{"period": period, "rows": count} for period, count in months.items()],
    }


def _doubts(survey: Survey, suspicion: Suspicion) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    private = survey.evidence.private
    kinds = {
        kind: len(np.unique(private.filter(pc.equal(private["kind"], kind))["row"].to_numpy()))
        for kind in sorted(set(private["kind"].unique().to_pylist()))
    }
    note = survey.evidence.note
    return {
        "suspects": suspicion.by_kind,
        "suspect_rows": suspicion.rows,
        "suspect_share": _share(suspicion.rows, survey),
        "reviewed_keep_rows": suspicion.kept,
        "anomalies": note.anomalies,
        "label_noise": note.label_noise,
        "private": kinds,
        "private_rows": len(np.unique(private["row"].to_numpy())),
    }


def _named(column: "pa.ChunkedArray", rows: int, missing: str = "not named", most: int = NAMES) -> list[dict[str, Any]]:
    """The commonest values with their rows, and their share of `rows` where that is given."""
    return [
        {"name": masked(value or missing), "rows": count} | ({"share": round(count / rows, 6)} if rows else {})
        for value, count in commonest(column, most)
    ]


def _share(rows: "int | np.int64", survey: Survey) -> float:
    return round(int(rows) / survey.rows, 6)


def _has(survey: Survey, column: str) -> bool:
    return column in survey.corpus.columns
