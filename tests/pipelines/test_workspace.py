"""The workspace: what is kept is there whole, or not at all."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.gates import Report, Waiver, decide
from pipelines.records import now
from pipelines.workspace import Workspace


def report(stage="audit", data="d1", name="small", holds=False):
    return Report(
        stage=stage,
        recipe_name=name,
        gates=(decide("data.size", holds, "750 of 1000."),),
        fingerprints={"data": data},
        recipe={},
        seconds=0.1,
        created_at=now(),
    )


def test_reports_come_back_as_they_were_newest_first(workspace):
    first, second = report(), report(holds=True)
    workspace.save_report(first)
    workspace.save_report(second)
    assert workspace.reports() == [second, first]
    assert workspace.find_report("audit", first.key) == second


def test_reports_are_found_by_stage_key_and_recipe(workspace):
    for each in (report(), report(stage="split"), report(data="d2"), report(name="other")):
        workspace.save_report(each)
    assert len(workspace.reports(stage="audit")) == 3
    assert len(workspace.reports(recipe_name="small")) == 3
    assert len(workspace.reports(stage="audit", key=report(data="d2").key)) == 1
    assert len(workspace.reports(limit=2)) == 2
    assert workspace.find_report("split", report().key) is None


def test_a_waiver_that_has_ended_no_longer_counts(workspace):
    closed = report()
    workspace.save_report(closed)
    ended = Waiver(
        gate="data.size", report=closed.key, by="Ada", because="x", until=now() - timedelta(seconds=1), created_at=now()
    )
    workspace.save_waiver(ended)
    assert workspace.find_report("audit", closed.key).verdict == "closed"
    workspace.save_waiver(ended.model_copy(update={"until": None}))
    assert workspace.find_report("audit", closed.key).verdict == "waived"
    assert len(workspace.waivers([closed.key])) == 2


def test_another_process_sees_what_was_kept(workspace):
    workspace.save_report(report())
    assert len(Workspace(Settings.from_environment()).reports()) == 1


def test_a_kept_folder_replaces_the_one_before_as_a_whole(workspace, tmp_path):
    source = tmp_path / "weights"
    source.mkdir()
    (source / "old").write_text("1")
    address = workspace.keep(source, "models", "a")
    (source / "old").unlink()
    (source / "new").write_text("2")
    assert workspace.keep(source, "models", "a") == address
    assert os.listdir(address) == ["new"]
    assert workspace.fetch(address) == type(tmp_path)(address)


def test_what_was_left_half_copied_is_not_mistaken_for_the_whole(workspace, tmp_path):
    source = tmp_path / "weights"
    source.mkdir()
    (source / "file").write_text("1")
    partial = type(tmp_path)(workspace.uri("models", "a.partial"))
    partial.mkdir(parents=True)
    (partial / "left over").write_text("")
    assert os.listdir(workspace.keep(source, "models", "a")) == ["file"]
    assert not partial.exists()


def test_storage_on_another_file_system_scheme_is_kept_and_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICE_STORAGE", f"file://{tmp_path}/bucket")
    workspace = Workspace()
    assert not workspace.is_local
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "file").write_text("1")
    address = workspace.keep(tmp_path / "weights", "models", "a")
    assert address == f"file://{tmp_path}/bucket/models/a"
    assert (workspace.fetch(address) / "file").read_text() == "1"


def test_storage_that_cannot_be_written_is_a_sentence(monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", "/proc/nowhere")
    with pytest.raises(UserError, match="/proc/nowhere cannot be written") as caught:
        Workspace().check_storage()
    assert "SLUICE_STORAGE" in caught.value.remedy


def test_a_workspace_has_one_secret_of_its_own(workspace, tmp_path):
    secret = workspace.secret()
    assert len(secret) == 32 and workspace.secret() == secret
    other = Workspace(replace(workspace.settings, storage=str(tmp_path / "other")))
    assert other.secret() != secret
    assert Path(workspace.uri("pseudonyms.key")).stat().st_mode & 0o077 == 0
