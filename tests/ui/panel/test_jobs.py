"""The panel beside a real Ray head: a stage is launched, watched, stopped and resumed in it."""

import json

import pytest

from cluster.jobs import JobState
from pipelines import submissions
from pipelines.recipe_file import load_recipe
from pipelines.stages import load_stage
from tests.ui.panel import seed
from tests.ui.panel.browser import settled
from tests.waiting import until

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


def job_row(page, submission_id):
    return page.locator("tr", has_text=submission_id)


def lines_of_log(page):
    return page.locator("pre.log").inner_text().splitlines()


def test_a_stage_is_launched_watched_stopped_and_resumed_in_the_panel(
    at_head, workspace, long_training, panel, page, tmp_path
):
    page.goto(f"{panel}/launch?from=file&path={long_training}")
    settled(page)
    page.get_by_role("combobox", name="Stage", exact=True).click()
    page.get_by_role("option", name="train:").click()
    page.get_by_role("button", name="Submit").click()

    # The job's page: its log grows, and leads to the curves.
    page.wait_for_url("**/jobs?**job=sluice-train-*")
    submission_id = page.url.rpartition("job=")[2]
    page.locator("pre.log", has_text="training: ").wait_for()
    assert page.locator("[data-testid=stCode]").inner_text().startswith("sluice submit train ")
    overview = f"{panel}/?recipe={load_recipe(long_training).name}"
    page.goto(overview)
    job_row(page, submission_id).get_by_text("running").wait_for()
    page.locator('[class*="st-key-stage-train-"]').get_by_text("running").wait_for()
    page.go_back()
    page.locator("pre.log", has_text="training: ").wait_for()
    before = len(lines_of_log(page))
    until(lambda: len(lines_of_log(page)) > before, "a longer log")

    page.get_by_label("Find in the log").fill("TRAINING: ")
    page.locator("pre.log mark").first.wait_for()
    assert all("training: " in line for line in lines_of_log(page) if line)
    page.get_by_label("Find in the log").fill("")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "whole.log")
    assert "training" in (tmp_path / "whole.log").read_text(encoding="utf-8")

    page.get_by_role("link", name="Curves of its training").click()
    page.wait_for_url("**/runs?**run=*")
    page.wait_for_selector(".js-plotly-plot")

    # Asked for on the run's page, the stop comes after a checkpoint.
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop this job").click()
    page.locator(".st-key-run-job .verdict.waived", has_text="stopped").wait_for()
    page.locator(".stMain .line .verdict.waived", has_text="stopped").first.wait_for()
    [stopped] = submissions.submissions(workspace)
    assert (stopped.state, stopped.exit_code) == (JobState.STOPPED, 1)
    assert workspace.reports(stage="train") == [], "no evidence of half a training"
    reached = int(page.locator(".facts dd").first.inner_text().replace(",", ""))
    page.goto(overview)
    job_row(page, submission_id).get_by_text("stopped").wait_for()
    until(lambda: job_row(page, submission_id).inner_text().split()[3] == "1", "the stage's own exit code")
    page.go_back()

    page.get_by_role("button", name="Resume").click()
    page.wait_for_url("**/jobs?**job=sluice-train-*")
    resumed = page.url.rpartition("job=")[2]
    assert resumed != submission_id
    assert [each.attempt for each in submissions.submissions(workspace)] == [2, 1]
    page.locator("pre.log", has_text=f"resumed from the checkpoint of step {reached}.").wait_for()

    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop this job").click()
    page.locator(".line .verdict.waived", has_text="stopped").wait_for()
    assert page.locator(".stException").count() == 0


def test_jobs_of_a_cluster_that_is_away_are_shown_with_their_age(workspace, panel, page):
    made = seed.submit(workspace, "train")
    page.goto(f"{panel}/jobs?recipe=docstrings")
    page.get_by_role("button", name=made.submission_id).click()
    page.wait_for_url(f"**job={made.submission_id}*")
    page.locator(".notice", has_text="127.0.0.1:9").first.wait_for()
    settled(page)
    assert "as of its start" in page.inner_text(".stMain")
    assert page.locator("[data-testid=stCode]").inner_text() == "sluice submit train '/home/jane/my recipes/r.yaml'"
    assert page.locator(".stException").count() == 0


def test_an_unknown_job_is_a_page_that_says_so(workspace, panel, page):
    page.goto(f"{panel}/jobs?job=%3Cb%3Enone%27--")
    page.wait_for_selector("text=No such job")
    assert "<b>none'--" in page.inner_text(".empty")


def test_nothing_submitted_leads_to_the_form(workspace, panel, page):
    workspace.save_report(seed.audit_report())
    page.goto(f"{panel}/jobs?recipe=docstrings")
    page.get_by_role("link", name="Launch a stage").click()
    page.wait_for_url("**/launch?recipe=docstrings")
    page.get_by_role("button", name="Submit").wait_for()
