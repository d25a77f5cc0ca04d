"""Datasets in a folder of the test."""

import json

import pytest

from pipelines.recipe import Recipe


@pytest.fixture
def dataset(tmp_path):
    """`dataset("name.jsonl", text or bytes or rows, **dataset keys) -> Recipe` that reads that file."""

    def make(name, content, seed=17, **keys):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return recipe_of(str(keys.pop("source", path)), seed, **keys)

    return make


def recipe_of(source, seed=17, **keys):
    return Recipe.model_validate(
        {"name": "x", "seed": seed, "dataset": {"source": source, **keys}, "models": [{"base": "owner/model"}]}
    )


@pytest.fixture
def reading_of():
    """`reading_of(source, **dataset keys) -> Recipe`."""
    return recipe_of


@pytest.fixture
def corpus_of_pairs(tmp_path):
    """`corpus_of_pairs(prompts, answers, labels) -> Corpus` with the columns that scores need."""

    def make(prompts, answers, labels=None):
        import pyarrow as pa

        from pipelines.data.anomaly.row_scores import row_scores
        from pipelines.data.corpus import CorpusWriter, Note

        turns = [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        columns = {
            "messages": [json.dumps(conversation) for conversation in turns],
            "label": pa.array(labels or [None] * len(turns), pa.string()),
            "prompt_words": pa.array([len(prompt.split()) for prompt in prompts], pa.int32()),
            "answer_words": pa.array([len(answer.split()) for answer in answers], pa.int32()),
        }
        with CorpusWriter(tmp_path / f"corpus{len(list(tmp_path.iterdir()))}") as writer:
            writer.write(pa.table(columns | row_scores(prompts, answers)))
            writer.write_bad(pa.table({"file": pa.array([], pa.string())}))
            return writer.finish(Note("fingerprint", "one process", 0))

    return make


@pytest.fixture(scope="session")
def docstrings():
    """(prompts, answers, modules) of the standard library's docstrings, in a seeded order."""
    import random

    from pipelines.data.reading.packages import find_package

    rows = [raw.value for _, raw in find_package("package://python#docstrings").rows()]
    random.Random(1).shuffle(rows)
    return [[row[name] for row in rows] for name in ("prompt", "completion", "module")]
