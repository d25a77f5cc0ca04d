"""Addresses from the environment."""

from pathlib import Path

import pytest

from cluster.settings import VARIABLES, Settings, without_secrets


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


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+pg8000://sluice:hunter2@db/sluice",
        "postgresql://sluice:hunter/2@db/sluice",
        "postgresql://sluice:hunter[2@db/sluice",
        "postgresql://:hunter2@db/sluice",
        "postgresql://db/sluice?user=sluice&password=hunter2",
        "postgresql://db/sluice?sslmode=require&SSLPassword=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dsluice%3BPWD%3Dhunter2",
        "https://hunter2@mlflow.internal",
        "https://mlflow.internal/?access_token=hunter2",
        "https://store.internal/data?sv=2024&sig=hunter2",
        "s3://key:hunter2@bucket/sluice",
    ],
)
def test_an_address_with_a_secret_stays_out(address):
    given = {"SLUICE_DATABASE": address, "SLUICE_STORAGE": "/srv/sluice"}
    assert without_secrets(given) == {"SLUICE_STORAGE": "/srv/sluice"}


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////srv/sluice.db",
        "/srv/passwords=none/a:b@c",
        "postgresql+pg8000://sluice@db:5432/sluice?sslmode=require&application_name=sluice",
        "http://mlflow.internal:5000/tracking",
        "abfs://container@account.dfs.core.windows.net/sluice",
        "s3://bucket/sluice?region=eu-central-1&endpoint_override=minio:9000",
        "0",
    ],
)
def test_an_address_without_a_secret_is_kept(address):
    assert without_secrets({"ANY": address}) == {"ANY": address}
