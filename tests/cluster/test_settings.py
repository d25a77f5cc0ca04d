"""Addresses from the environment."""

from pathlib import Path

import pytest

from cluster.settings import VARIABLES, Settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_any_variable_all_lies_in_one_folder_at_home(tmp_path):
    settings = Settings.from_environment()
    assert settings.storage == str(tmp_path / ".sluice")
    assert settings.database_url == f"sqlite:///{tmp_path}/.sluice/sluice.db"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.sluice/mlflow.db"
    assert settings.models == tmp_path / ".sluice" / "models"
    assert settings.ray_address is None


def test_a_folder_becomes_absolute_so_that_workers_elsewhere_find_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_STORAGE", "kept")
    assert Settings.from_environment().storage == str(tmp_path / "kept")
    monkeypatch.setenv("SLUICE_STORAGE", "~/kept")
    assert Settings.from_environment().storage == str(tmp_path / "kept")


def test_a_bucket_keeps_its_uri_and_sqlite_stays_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_STORAGE", "s3://bucket/folder")
    settings = Settings.from_environment()
    assert settings.storage == "s3://bucket/folder"
    assert settings.database_url == f"sqlite:///{tmp_path}/.sluice/sluice.db"
    assert settings.models == tmp_path / ".sluice" / "models"


def test_what_is_named_is_taken(monkeypatch):
    given = {
        "SLUICE_STORAGE": "/srv/sluice",
        "SLUICE_DATABASE": "postgresql+pg8000://db/sluice",
        "SLUICE_TRACKING": "http://tracking:5000",
        "SLUICE_MODELS": "/srv/models",
        "RAY_ADDRESS": "ray://head:10001",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    assert settings.models == Path("/srv/models")
    assert settings.ray_address == "ray://head:10001"
    assert settings.environment() == {name: value for name, value in given.items() if name != "RAY_ADDRESS"}


def test_empty_variables_count_as_unset(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert Settings.from_environment().ray_address is None
    assert Settings.from_environment().storage.endswith("/.sluice")


def test_workers_that_get_these_settings_arrive_at_the_same_ones(monkeypatch):
    monkeypatch.setenv("SLUICE_STORAGE", "somewhere")
    settings = Settings.from_environment()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == settings
