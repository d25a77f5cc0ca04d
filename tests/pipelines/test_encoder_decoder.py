"""An encoder-decoder from examples to an evaluation: nothing in the recipe says that it is one."""

import json
import random

import pytest

from pipelines.gates import Verdict
from pipelines.progress import Progress
from pipelines.recipe_file import load_recipe
from pipelines.stages import load_stage

WORDS = ["list", "map", "tree", "file", "name", "path"]


def write_examples(path, count=240):
    draw = random.Random(0)
    about = {"annotator": "jane", "source": "made", "collector": "ops"}
    lines = []
    for number in range(count):
        words = draw.choices(WORDS, k=4)
        lines.append({"prompt": f"{number}: {' '.join(words)}", "completion": words[0]} | about)
    path.write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.cluster
def test_from_examples_to_an_evaluation(ray_cluster, recipe_file, tiny_t5, tmp_path, capsys):
    write_examples(tmp_path / "examples.jsonl")
    recipe = load_recipe(
        recipe_file(
            name="seq2seq",
            models=[{"base": str(tiny_t5)}],
            dataset={"source": "examples.jsonl", "instruction": "Name the first word."},
            audit={"min_examples": 100, "max_duplicate_share": 1.0, "near_duplicate_threshold": 1.0},
            train={"learning_rate": 2e-2, "max_steps": 24, "eval_steps": 12, "max_length": 128, "dtype": "float32"}
            | {"global_batch_size": 8, "per_device_train_batch_size": 8},
            evaluate={"primary": "loss", "max_examples": 16, "max_new_tokens": 8, "resamples": 200},
        )
    )
    for name in ("audit", "split"):
        assert load_stage(name).perform(recipe, ray_cluster).verdict is Verdict.OPEN
    trained = load_stage("train").perform(recipe, ray_cluster, Progress())
    assert trained.verdict is Verdict.OPEN, trained.gates
    assert "packing does not apply" in capsys.readouterr().err
    assert trained.figures["packed"] is False and trained.figures["sequences"] == trained.figures["examples"]
    example = trained.figures["example"]
    assert example["text"].startswith("Name the first word.") and example["supervised_text"].endswith("</s>")

    report = load_stage("evaluate").perform(recipe, ray_cluster, Progress(quiet=True))
    figures = report.figures
    assert figures["examples"] == 16 and figures["too_long"] == 0
    # The same rendering, weighted by the same tokens, on another side.
    assert figures["candidates"]["base"]["loss"] == pytest.approx(trained.figures["baseline_validation_loss"], rel=0.2)
    assert figures["candidates"]["tuned"]["loss"] == pytest.approx(trained.figures["validation_loss"], rel=0.3)
    assert figures["comparisons"]["loss"]["high"] < 0
