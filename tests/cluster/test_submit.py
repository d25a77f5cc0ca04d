"""`sluice submit` against a real head with token authentication: from another folder, twice, and stopped."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.jobs import JobState
from cluster.packages import ROOT
from pipelines import submissions
from pipelines.recipe_file import load_recipe
from pipelines.stages import load_stage
from pipelines.tracking import submission_log
from pipelines.workspace import Workspace
from tests.waiting import until


def write_examples(folder, count=12):
    rows = [
        {
            "prompt": f"What is {n} times {n + 3}?",
            "completion": f"It is {n * (n + 3)}.",
            "annotator": "jane",
            "source": "sums",
        }
        for n in range(count)
    ]
    path = folder / "examples.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.cluster
def test_an_audit_submitted_from_another_folder_is_followed_to_its_end_and_is_one_job(
    at_head, workspace, recipe_file, tmp_path, monkeypatch
):
    write_examples(tmp_path)
    path = recipe_file(audit={"min_examples": 10})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: submissions.submit_stage("audit", path, [], Workspace()), range(2)))
    log = []
    ended = submissions.follow(both[0], workspace, log.append)

    assert sum(each.created for each in both) == 1
    assert len({each.submission_id for each in both}) == 1
    assert (ended.state, ended.outcome) == (JobState.SUCCEEDED, 0), "".join(log)
    assert "data.size" in "".join(log)
    report = workspace.reports(stage="audit")[0]
    assert report.figures["rows"] == 12
    assert report.recipe["dataset"]["source"] == str(tmp_path / "examples.jsonl")
    again = submissions.submit_stage("audit", path, [], workspace)
    assert (again.submission_id, again.created, again.state) == (ended.submission_id, False, JobState.SUCCEEDED)
    assert [each.submission_id for each in submissions.submissions(workspace)] == [ended.submission_id]


@pytest.mark.cluster
def test_a_closed_gate_is_exit_code_3_and_the_next_request_another_attempt(at_head, workspace, recipe_file, tmp_path):
    write_examples(tmp_path)
    path = recipe_file()
    first = submissions.follow(submissions.submit_stage("audit", path, [], workspace), workspace, lambda text: None)
    assert (first.state, first.outcome) == (JobState.FAILED, 3)
    again = submissions.submit_stage("audit", path, [], workspace)
    assert (again.attempt, again.created) == (2, True)
    assert submissions.follow(again, workspace, lambda text: None).outcome == 3


@pytest.mark.cluster
def test_changed_data_are_another_request(at_head, workspace, recipe_file, tmp_path):
    path = recipe_file(audit={"min_examples": 10})
    write_examples(tmp_path)
    first = submissions.submit_stage("audit", path, [], workspace)
    write_examples(tmp_path, count=13)
    second = submissions.submit_stage("audit", path, [], workspace)
    assert second.created and second.submission_id != first.submission_id
    for each in (first, second):
        submissions.follow(each, workspace, lambda text: None)


@pytest.mark.cluster
def test_the_plain_command_of_the_readme_runs_with_nothing_of_ours_installed(at_head, recipe_file, tmp_path):
    """`ray job submit --working-dir . -- python -m pipelines.audit recipe.yaml`, from a folder that holds all."""
    from cluster.packages import copy_packages

    write_examples(tmp_path)
    recipe_file(audit={"min_examples": 10})
    folder = tmp_path / "checkout"
    folder.mkdir()
    copy_packages(folder)
    for name in ("recipe.yaml", "examples.jsonl"):
        (folder / name).write_text((tmp_path / name).read_text())
    environment = json.dumps({"env_vars": {"SLUICE_STORAGE": str(tmp_path / "plain")}})
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--working-dir", ".", "--runtime-env-json", environment),
            *("--", sys.executable, "-m", "pipelines.audit", "recipe.yaml", "--json"),
        ],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"verdict": "open"' in done.stdout


# A stage that works until it is asked to stop, as training does at its step boundaries; or that never looks.
WORKER = """
import sys, time
from pipelines.submissions import stop_requested
from pipelines.workspace import Workspace
workspace = Workspace()
looks = open("recipe.yaml").read() == "looks"
print("at work", flush=True)
while not (looks and stop_requested(workspace)):
    time.sleep(0.1)
print("a checkpoint was written", flush=True)
"""


def start_worker(workspace, folder, recipe):
    """A submission whose job is WORKER, at work."""
    from cluster.jobs import Jobs
    from cluster.packages import copy_packages

    folder.mkdir()
    copy_packages(folder)
    (folder / "worker.py").write_text(WORKER)
    (folder / "recipe.yaml").write_text(recipe)
    jobs = Jobs()
    request = submission_log.Request(os.urandom(32).hex(), "train", "small", fresh=False)
    made = submission_log.claim(workspace, jobs, request)
    environment = submissions.job_environment(workspace.settings, made.submission_id, here=True)
    jobs.submit(made.submission_id, "worker", folder, environment)
    until(lambda: "at work" in log_of(made), "the job's work")
    return made


def log_of(submission):
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(submission.address).get_job_logs(submission.submission_id)
    except RuntimeError:
        return ""


@pytest.mark.cluster
def test_a_stop_lets_the_stage_end_at_a_good_moment(at_head, workspace, tmp_path):
    made = start_worker(workspace, tmp_path / "job", "looks")
    assert submissions.submissions(workspace)[0].state is JobState.RUNNING
    ended = submissions.stop(workspace, made.submission_id, grace_s=60)
    assert "a checkpoint was written" in log_of(made)
    assert (ended.state, ended.outcome) == (JobState.SUCCEEDED, 0)
    assert ended.stop_requested_at is not None


@pytest.mark.cluster
def test_a_stage_that_never_looks_is_ended_after_its_grace(at_head, workspace, tmp_path):
    made = start_worker(workspace, tmp_path / "job", "never looks")
    ended = submissions.stop(workspace, made.submission_id, grace_s=1)
    assert ended.state is JobState.STOPPED
    assert ended.outcome == 1
    assert submissions.stop(workspace, made.submission_id).state is JobState.STOPPED, "twice is once"


def sluice(*arguments, cwd):
    """The command line, as installed: from `cwd`, with this environment."""
    return subprocess.run(
        [sys.executable, "-m", "ui.cli", *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.cluster
def test_training_submitted_from_another_folder_stands_on_evidence_from_here_and_is_followed_to_its_end(
    at_head, workspace, recipe_file, tiny_model, tmp_path, monkeypatch
):
    write_examples(tmp_path, count=80)
    path = recipe_file(
        models=[{"base": str(tiny_model)}],
        audit={"min_examples": 50, "max_duplicate_share": 1.0, "near_duplicate_threshold": 1.0},
        train={"max_steps": 4, "eval_steps": 2, "global_batch_size": 4, "max_length": 128, "learning_rate": 1e-2}
        | {"dtype": "float32"},
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    early = sluice("submit", "train", path, cwd=elsewhere)
    assert early.returncode == 3, early.stderr
    assert "there is no audit report" in early.stderr
    recipe = load_recipe(path)
    for name in ("audit", "split"):
        load_stage(name).perform(recipe, workspace)

    done = sluice("submit", "train", path, cwd=elsewhere)
    again = sluice("submit", "train", path, cwd=elsewhere)

    assert done.returncode == 0, done.stderr
    assert "train.converged" in done.stderr, "the log was followed to the end"
    report = workspace.reports(stage="train")[0]
    assert report.figures["steps"] == 4
    assert Path(report.produced["model"]).is_dir()
    assert "submitted before, succeeded" in again.stderr
    assert again.returncode == 0
    listed = submissions.submissions(workspace)
    assert [(each.stage, each.attempt, each.state) for each in listed] == [
        ("train", 2, JobState.SUCCEEDED),
        ("train", 1, JobState.FAILED),
    ]
    assert load_stage("train").perform(recipe, workspace) == report, "the same evidence here"
