"""A recipe over the tiny model, audited and split: what training and sweeps start from."""

import json
import random

import pytest

from pipelines import audit, split
from pipelines.gates import Verdict
from pipelines.recipe_file import load_recipe

WORDS = [line for line in json.__doc__.split() if line.isalpha()]


@pytest.fixture
def small_recipe(ray_cluster, tiny_model, recipe_file, tmp_path, monkeypatch):
    """A recipe over the tiny model whose audit and split have passed, in the cluster's workspace."""
    draw = random.Random(5)
    with (tmp_path / "examples.jsonl").open("w") as stream:
        for number in range(300):
            words = draw.choices(WORDS, k=14)
            answer = " ".join(words[:3])
            stream.write(json.dumps({"prompt": f"{number} " + " ".join(words), "completion": answer}) + "\n")

    def make(**sections):
        path = recipe_file(
            name=sections.pop("name", "small"),
            dataset={
                "source": "examples.jsonl",
                "provenance": {"source": "made", "collector": "a test", "annotator": "a person"},
            },
            audit={"min_examples": 100, "near_duplicate_threshold": 1.0, "max_duplicate_share": 1.0},
            models=[{"base": str(tiny_model)}],
            train={
                "learning_rate": 1e-2,
                "lora_r": 4,
                "max_steps": 6,
                "eval_steps": 2,
                "global_batch_size": 4,
                "max_length": 256,
                "dtype": "float32",
            }
            | sections.pop("train", {}),
            **sections,
        )
        recipe = load_recipe(path)
        for stage in (audit.STAGE, split.STAGE):
            report = stage.perform(recipe, ray_cluster)
            assert report.verdict is not Verdict.CLOSED, report.gates
        return recipe

    return make
