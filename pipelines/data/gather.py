"""Looking through a corpus for evidence: each part's search, one after the other, as the tables that are kept."""

import json
from typing import TYPE_CHECKING, Any

from pipelines.data.corpus import Corpus
from pipelines.data.evidence import vectors_table
from pipelines.progress import Progress
from pipelines.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from pipelines.data.similarity.clusters import Clusters

SUSPECTS = (("row", "int64"), ("kind", "string"), ("score", "float32"), ("reason", "string"))
EDGES = (("left", "int64"), ("right", "int64"), ("similarity", "float32"), ("kind", "string"))
PRIVATE = (("row", "int64"), ("kind", "string"), ("masked", "string"))


def gather(
    corpus: Corpus, recipe: Recipe, progress: Progress
) -> "tuple[dict[str, pa.Table], dict[str, Any], dict[str, Any]]":
    """The tables of the evidence, the figures of the suspects and those of the labels."""
    import pyarrow as pa

    found, edges = _clusters(corpus, recipe, progress)
    text, cluster = found.text, found.cluster
    suspects, anomalies = _suspects(corpus, cluster, recipe, progress)
    wrong, label_noise = _labels(corpus, cluster, recipe, progress)
    tables = {
        "clusters": pa.table({"text": text, "cluster": cluster}),
        "edges": edges,
        "suspects": pa.concat_tables([suspects, wrong]),
        "private": private_table(corpus),
    }
    if found.vectors is not None:
        tables["vectors"] = vectors_table(found.vectors)
    return tables, anomalies, label_noise


def _clusters(corpus: Corpus, recipe: Recipe, progress: Progress) -> "tuple[Clusters, pa.Table]":
    import pyarrow as pa

    from pipelines.data.similarity.clusters import find_clusters

    audit = recipe.audit
    found = find_clusters(
        corpus,
        audit.near_duplicate_threshold,
        recipe.dataset.instruction,
        progress,
        semantic=audit.semantic,
        base=recipe.base,
    )
    columns = {"left": found.left, "right": found.right, "similarity": found.similarity, "kind": found.kind}
    return found, pa.table(columns, schema=_schema(EDGES))


def _suspects(
    corpus: Corpus, cluster: "NDArray[np.int64]", recipe: Recipe, progress: Progress
) -> "tuple[pa.Table, dict[str, Any]]":
    from pipelines.data.anomaly.anomalies import find_suspects

    audit = recipe.audit
    found = find_suspects(
        corpus,
        cluster,
        audit.anomalies,
        instruction=recipe.dataset.instruction,
        folds=audit.folds,
        seed=recipe.seed,
        progress=progress,
    )
    return _plain(found.table, SUSPECTS), found.figures


def _labels(
    corpus: Corpus, cluster: "NDArray[np.int64]", recipe: Recipe, progress: Progress
) -> "tuple[pa.Table, dict[str, Any]]":
    if not recipe.dataset.label:
        return _schema(SUSPECTS).empty_table(), {}
    from pipelines.data.anomaly.label_noise import label_noise

    found = label_noise(
        corpus,
        cluster,
        folds=recipe.audit.folds,
        seed=recipe.seed,
        progress=progress,
        instruction=recipe.dataset.instruction,
    )
    return _plain(found.table, SUSPECTS), found.figures


def private_table(corpus: Corpus) -> "pa.Table":
    """row, kind, masked: what the corpus' column `private` lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, list[Any]] = {"row": [], "kind": [], "masked": []}
    start = 0
    if "private" in corpus.columns:
        for batch in corpus.batches(["private"]):
            for place in pc.indices_nonzero(batch["private"].is_valid()).to_pylist():
                for found in json.loads(batch["private"][place].as_py()):
                    columns["row"].append(start + place)
                    columns["kind"].append(found["kind"])
                    columns["masked"].append(found["masked"])
            start += len(batch)
    return pa.table(columns, schema=_schema(PRIVATE))


def _schema(columns: tuple[tuple[str, str], ...]) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, getattr(pa, kind)()) for name, kind in columns])


def _plain(table: "pa.Table", columns: tuple[tuple[str, str], ...]) -> "pa.Table":
    return table.select([name for name, _ in columns]).cast(_schema(columns))
