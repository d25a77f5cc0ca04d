"""Submissions: one request is one job, followed to its end and stopped at a good moment."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import yaml

from cluster.errors import UserError
from cluster.jobs import Job, JobState
from cluster.settings import Settings
from pipelines import job_folder, submissions
from pipelines.recipe_file import load_recipe
from pipelines.records import SubmissionRow, now
from pipelines.tracking import submission_log
from pipelines.tracking.submission_log import Request
from pipelines.workspace import Workspace


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


class KnownJobs:
    """What Ray would tell of jobs, without a Ray: the table's side is what is tried here."""

    address = "http://127.0.0.1:8265"

    def __init__(self, **states):
        self.states = states

    def wait_until_known(self, submission_id, timeout_s):
        return self.find(submission_id) is not None

    def find(self, submission_id):
        state = self.states.get("every")
        return Job(submission_id, state, None, "", None, None) if state else None


REQUEST = Request("k" * 64, "audit", "small", fresh=False)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED])
def test_a_request_under_way_or_done_is_the_same_submission(workspace, state):
    first = submission_log.claim(workspace, KnownJobs(), REQUEST)
    again = submission_log.claim(workspace, KnownJobs(every=state), REQUEST)
    assert (first.created, again.created) == (True, False)
    assert again.submission_id == first.submission_id


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.STOPPED])
def test_what_failed_or_was_stopped_is_tried_again(workspace, state):
    first = submission_log.claim(workspace, KnownJobs(), REQUEST)
    again = submission_log.claim(workspace, KnownJobs(every=state), REQUEST)
    assert (again.created, again.attempt) == (True, 2)
    assert again.submission_id != first.submission_id


def test_fresh_repeats_what_succeeded_and_joins_what_runs(workspace):
    fresh = Request(REQUEST.key, "audit", "small", fresh=True)
    submission_log.claim(workspace, KnownJobs(), REQUEST)
    assert not submission_log.claim(workspace, KnownJobs(every=JobState.RUNNING), fresh).created
    assert submission_log.claim(workspace, KnownJobs(every=JobState.SUCCEEDED), fresh).attempt == 2


def test_of_many_that_submit_at_once_one_starts_the_job(workspace):
    _ = workspace.database
    barrier = threading.Barrier(8)

    def claim(_):
        barrier.wait()
        return submission_log.claim(Workspace(workspace.settings), KnownJobs(), REQUEST)

    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(claim, range(8)))
    assert sum(each.created for each in claimed) == 1
    assert len({each.submission_id for each in claimed}) == 1


def test_a_submission_that_never_reached_ray_is_lost_after_a_while_and_tried_again(workspace):
    first = submission_log.claim(workspace, KnownJobs(), REQUEST)
    assert not submission_log.claim(workspace, KnownJobs(), REQUEST).created, "it may be about to start"
    age(workspace, submission_log.STARTUP + timedelta(seconds=1))
    again = submission_log.claim(workspace, KnownJobs(), REQUEST)
    assert again.attempt == 2
    assert submissions.find_submission(workspace, first.submission_id).state is JobState.LOST


def age(workspace, by):
    with workspace.session() as session:
        session.get(SubmissionRow, 1).created_at = now() - by


def test_the_same_request_waits_while_the_first_still_uploads_its_data(workspace):
    first = submission_log.claim(workspace, KnownJobs(), REQUEST)
    age(workspace, timedelta(minutes=10))
    again = submission_log.claim(workspace, KnownJobs(), REQUEST)
    assert (again.submission_id, again.created) == (first.submission_id, False)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED])
def test_a_lost_submission_that_ray_knows_after_all_is_found_again(workspace, state):
    first = submission_log.claim(workspace, KnownJobs(), REQUEST)
    age(workspace, submission_log.STARTUP + timedelta(seconds=1))
    row = submission_log.find(workspace, first.submission_id)
    submission_log.refresh(workspace, [row], {})
    assert submissions.find_submission(workspace, first.submission_id).state is JobState.LOST
    submission_log.refresh(workspace, [row], {})
    assert submissions.find_submission(workspace, first.submission_id).state is JobState.LOST
    again = submission_log.claim(workspace, KnownJobs(every=state), REQUEST)
    assert (again.submission_id, again.created, again.state) == (first.submission_id, False, state)


def test_nobody_waits_for_a_start_that_was_given_up(workspace):
    made = submission_log.claim(workspace, KnownJobs(), REQUEST)
    submissions._wait_for_start(KnownJobs(every=JobState.RUNNING), made, workspace)
    submission_log.forget(workspace, made.submission_id)
    with pytest.raises(UserError, match="There is no submission"):
        submissions._wait_for_start(KnownJobs(), made, workspace)


def test_an_unknown_submission_suggests_the_nearest(workspace):
    made = submission_log.claim(workspace, KnownJobs(), REQUEST)
    with pytest.raises(UserError, match=f"did you mean {made.submission_id}"):
        submissions.find_submission(workspace, made.submission_id[:-1] + "z")


def test_a_cluster_that_is_away_leaves_the_last_known_states(workspace, monkeypatch):
    submission_log.claim(workspace, KnownJobs(), REQUEST)
    submission_log.claim(workspace, KnownJobs(every=JobState.RUNNING), REQUEST)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    (listed,) = submissions.submissions(workspace)
    assert listed.state is JobState.RUNNING
    assert listed.seen_at is not None


def test_what_fails_after_a_stop_was_asked_for_was_stopped_and_is_tried_again(workspace):
    made = submission_log.claim(workspace, KnownJobs(), REQUEST)
    submission_log.request_stop(workspace, made.submission_id)
    again = submission_log.claim(workspace, KnownJobs(every=JobState.FAILED), REQUEST)
    assert again.attempt == 2
    assert submissions.find_submission(workspace, made.submission_id).state is JobState.STOPPED


def test_a_stop_is_read_inside_its_job_alone(workspace, monkeypatch):
    made = submission_log.claim(workspace, KnownJobs(), REQUEST)
    submission_log.request_stop(workspace, made.submission_id)
    assert not submissions.stop_requested(workspace), "outside of a job"
    monkeypatch.setenv("SLUICE_SUBMISSION_ID", "another")
    assert not submissions.stop_requested(workspace)
    monkeypatch.setenv("SLUICE_SUBMISSION_ID", made.submission_id)
    assert submissions.stop_requested(workspace)


def test_the_job_folder_holds_the_resolved_recipe_and_points_to_shared_files(recipe_file, tmp_path):
    data = write_examples(tmp_path)
    recipe = load_recipe(recipe_file(), ["train.learning_rate=3e-4"])
    folder = tmp_path / "job"
    folder.mkdir()
    job_folder.fill(folder, recipe, shared_files=True)
    assert load_recipe(folder / "recipe.yaml") == recipe
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["dataset"]["source"] == str(data)


def write_tree(folder):
    """Examples in several folders, two files of one name, and what no reader takes."""
    for number, name in enumerate(("2023/sums.jsonl", "2024/sums.jsonl", "2024/spring/more.jsonl", "odd [1]*.jsonl")):
        target = folder / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_examples(target.parent, 5 + number).rename(target)
    (folder / "data" / "README.md").write_text("No examples.")
    (folder / "data" / ".gitignore").write_text("*.jsonl")
    (folder / "recipes").mkdir()


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("data/2024/sums.jsonl", 1),
        ("data/odd [[]1][*].jsonl", 1),
        ("data/odd [1]*.jsonl", 1),
        ("data/**/*.jsonl", 4),
        ("data", 4),
        ("data/20*", 3),
        (["data/2023/sums.jsonl", "data/2024/sums.jsonl"], 2),
        (["data/2024", "data/2024/sums.jsonl", "data/*/sums.jsonl", "data/2023/../2024/sums.jsonl"], 3),
        (["recipes/../data/2023", "data/2024/spring"], 2),
        (["data/2023/sums.jsonl", "{uri}/data/2024/sums.jsonl"], 1),
        (["package://chatterbot-corpus#chatterbot", "data/2024"], 2),
    ],
)
def test_data_travel_to_a_cluster_elsewhere_and_stay_the_same_data(recipe_file, tmp_path, source, files):
    from pipelines.data.reading.read import dataset_fingerprint

    here = tmp_path / "here"
    write_tree(here)
    # A URI stands for a bucket that both see.
    sources = [source] if isinstance(source, str) else [each.replace("{uri}", here.as_uri()) for each in source]
    recipe = load_recipe(recipe_file("here/recipe.yaml", dataset={"source": sources}))
    expected = dataset_fingerprint(recipe)
    folder = tmp_path / "job"
    folder.mkdir()
    job_folder.fill(folder, recipe, shared_files=False)
    if "{uri}" not in str(source):
        here.rename(tmp_path / "out of reach")

    assert dataset_fingerprint(load_recipe(folder / "recipe.yaml")) == expected
    travelled = [path for path in (folder / "data").rglob("*") if path.is_file()]
    assert len(travelled) == files
    assert {path.suffix for path in travelled} == {".jsonl"}


def test_benchmarks_travel_too_and_stay_the_same_sets(recipe_file, tmp_path):
    from pipelines import split
    from pipelines.data.leaks.benchmark_sets import benchmark_items, benchmarks_fingerprint

    here = tmp_path / "here"
    (here / "sets/a").mkdir(parents=True)
    write_examples(here)
    for name in ("quiz.jsonl", "a/quiz.jsonl"):
        (here / "sets" / name).write_text(json.dumps({"question": f"Who is {name}?"}) + "\n")
    recipe = load_recipe(recipe_file("here/recipe.yaml", split={"benchmarks": ["sets/quiz.jsonl", "sets/a"]}))
    expected, items = benchmarks_fingerprint(recipe.split.benchmarks), list(benchmark_items(recipe.split.benchmarks))
    folder = tmp_path / "job"
    folder.mkdir()
    job_folder.fill(folder, recipe, shared_files=False)
    here.rename(tmp_path / "out of reach")
    there = load_recipe(folder / "recipe.yaml")
    assert benchmarks_fingerprint(there.split.benchmarks) == expected
    assert list(benchmark_items(there.split.benchmarks)) == items and len(items) == 2
    # A split that was made here is found there.
    assert split.rules_fingerprint(there) == split.rules_fingerprint(recipe)


def test_large_data_do_not_travel(recipe_file, tmp_path, monkeypatch):
    write_examples(tmp_path)
    monkeypatch.setattr(job_folder, "MAX_DATA_BYTES", 10)
    with pytest.raises(UserError, match="travel with a job") as caught:
        job_folder.fill(tmp_path / "job", load_recipe(recipe_file()), shared_files=False)
    assert "workspace's storage" in caught.value.remedy


@pytest.mark.parametrize("sections", [{"models": [{"base": "base"}]}, {"audit": {"semantic": {"model": "base"}}}])
def test_a_model_in_a_folder_of_this_machine_does_not_travel(recipe_file, tmp_path, sections):
    write_examples(tmp_path)
    (tmp_path / "base").mkdir()
    with pytest.raises(UserError, match="folder of this machine"):
        job_folder.fill(tmp_path / "job", load_recipe(recipe_file(**sections)), shared_files=False)


SHARED = {
    "SLUICE_STORAGE": "s3://bucket/sluice",
    "SLUICE_DATABASE": "postgresql+pg8000://db/sluice",
    "SLUICE_TRACKING": "http://mlflow.internal:5000",
}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("SLUICE_STORAGE", "kept"),
        ("SLUICE_STORAGE", "/srv/sluice"),
        ("SLUICE_STORAGE", "file:///srv/sluice"),
        ("SLUICE_DATABASE", "sqlite:////srv/sluice.db"),
        ("SLUICE_TRACKING", "mlruns"),
        ("SLUICE_TRACKING", "sqlite:///mlflow.db"),
    ],
)
def test_a_cluster_elsewhere_needs_every_place_to_be_shared(monkeypatch, name, place):
    for each, shared in SHARED.items():
        monkeypatch.setenv(each, shared)
    here, elsewhere = KnownJobs(), KnownJobs()
    here.is_here, elsewhere.is_here = True, False
    submissions.check_shared(elsewhere, Settings.from_environment())
    monkeypatch.setenv(name, place)
    submissions.check_shared(here, Settings.from_environment())
    with pytest.raises(UserError, match=f"and {name} would be on this one's disk"):
        submissions.check_shared(elsewhere, Settings.from_environment())


def test_no_password_travels_in_a_jobs_environment(monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", "s3://bucket/sluice")
    monkeypatch.setenv("SLUICE_DATABASE", "postgresql+pg8000://sluice:hunter2@db/sluice")
    monkeypatch.setenv("SLUICE_TRACKING", "http://mlflow.internal:5000")
    environment = submissions.job_environment(Settings.from_environment(), "s-1", here=False)
    assert "hunter2" not in str(environment)
    monkeypatch.setenv("SLUICE_TRACKING", "https://hunter2@mlflow.internal")
    assert "hunter2" not in str(submissions.job_environment(Settings.from_environment(), "s-1", here=True))
    assert environment["SLUICE_STORAGE"] == "s3://bucket/sluice"
    assert environment["SLUICE_TRACKING"] == "http://mlflow.internal:5000"
    assert environment["SLUICE_SUBMISSION_ID"] == "s-1"
    assert "SLUICE_MODELS" not in environment, "a folder of this machine"


def test_other_benchmarks_are_another_request(recipe_file, tmp_path):
    for name in ("examples.jsonl", "bench.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    recipe = load_recipe(recipe_file(split={"benchmarks": "bench.jsonl"}))
    first = submissions.request_key("split", recipe, "http://here")
    assert submissions.request_key("split", recipe, "http://here") == first
    (tmp_path / "bench.jsonl").write_text('{"prompt": "c", "completion": "d"}\n', encoding="utf-8")
    assert submissions.request_key("split", recipe, "http://here") != first


def test_a_wrong_stage_is_named_with_the_nearest(workspace, recipe_file):
    with pytest.raises(UserError, match="did you mean train"):
        submissions.submit_stage("trian", recipe_file(), [], workspace)


def test_submissions_are_shown_with_whole_ids(workspace, capsys):
    submissions.show_submissions([])
    assert "sluice submit" in capsys.readouterr().out
    made = submission_log.claim(workspace, KnownJobs(), REQUEST)
    submissions.show_submissions([made])
    assert made.submission_id in capsys.readouterr().out
