"""What the panel knows of jobs when their cluster, or the database, is away."""

from dataclasses import replace

import pytest

from cluster.jobs import JobState
from tests.ui.panel import seed
from ui.panel import backend, jobs_backend


def test_a_job_that_was_never_submitted_is_none(workspace):
    found = jobs_backend.job("sluice-train-nowhere-1")
    assert (found.value, found.problem) == (None, None)


def test_a_cluster_that_is_away_leaves_the_last_state_with_the_reason(workspace):
    made = seed.submit(workspace, "train")
    found = jobs_backend.job(made.submission_id)
    assert found.value.submission_id == made.submission_id
    assert "127.0.0.1:9" in found.problem.message


@pytest.mark.sqlite
def test_a_database_that_is_away_is_no_missing_job(workspace, tmp_path):
    made = seed.submit(workspace, "train")
    assert jobs_backend.job(made.submission_id).value is not None
    backend.workspace().database.dispose()
    workspace.database.dispose()
    (tmp_path / "workspace").rename(tmp_path / "elsewhere")
    # In its place stands what cannot be opened, however often that is tried.
    (tmp_path / "workspace").write_text("no folder", encoding="utf-8")
    for _ in range(3):
        away = jobs_backend.job(made.submission_id)
        assert away.value is not None and "SLUICE_DATABASE" in away.problem.remedy


def test_a_job_on_its_way_to_the_cluster_has_said_nothing_yet(workspace):
    made = seed.submit(workspace, "train")
    assert made.state is JobState.SUBMITTING
    assert jobs_backend.log(made).value == ""
    assert "127.0.0.1:9" in jobs_backend.log(replace(made, state=JobState.RUNNING)).problem.message
