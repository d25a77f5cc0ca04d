"""The panel beside a real Ray head: a submitted stage appears, runs, and ends before the reader's eyes."""

import json

import pytest

from pipelines import submissions
from pipelines.recipe_file import load_recipe
from pipelines.stages import load_stage
from tests.ui.panel.browser import settled, until

pytestmark = [pytest.mark.browser, pytest.mark.cluster]


@pytest.fixture
def long_training(workspace, recipe_file, tiny_model, tmp_path):
    """A recipe whose data have passed, and which would train for hours."""
    rows = [{"prompt": f"What is {n} times {n + 3}?", "completion": f"It is {n * (n + 3)}."} for n in range(120)]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = recipe_file(
        dataset={"source": "examples.jsonl", "provenance": {"source": "sums", "annotator": "jane"}},
        models=[{"base": str(tiny_model)}],
        audit={"min_examples": 50, "max_duplicate_share": 1.0, "near_duplicate_threshold": 1.0},
        split={"train": 0.5, "validation": 0.25, "test": 0.25, "min_validation": 1, "min_test": 1},
        train={"num_train_epochs": 10_000, "max_steps": 20_000, "eval_steps": 5_000, "global_batch_size": 4}
        | {"max_length": 128, "learning_rate": 1e-3, "dtype": "float32"},
    )
    for name in ("audit", "split"):
        load_stage(name).perform(load_recipe(path), workspace)
    return path


def job_row(page, made):
    return page.locator("tr", has_text=made.submission_id)


def test_a_submitted_stage_is_shown_from_its_submission_to_its_stop(at_head, workspace, long_training, panel, page):
    name = load_recipe(long_training).name
    page.goto(f"{panel}/?recipe={name}")
    settled(page)
    page.wait_for_selector("text=sluice submit STAGE RECIPE")

    made = submissions.submit_stage("train", long_training, [], workspace)

    # The page follows by itself: nobody reloads it.
    job_row(page, made).get_by_text("running").wait_for(timeout=120_000)
    page.locator('[class*="st-key-stage-train-"]').get_by_text("running").wait_for(timeout=120_000)
    page.reload()
    settled(page)
    assert "running" in job_row(page, made).inner_text()

    submissions.stop(workspace, made.submission_id, grace_s=120)
    job_row(page, made).get_by_text("stopped").wait_for(timeout=60_000)
    until(lambda: job_row(page, made).inner_text().split()[3] == "1", "the stage's own exit code")
