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
