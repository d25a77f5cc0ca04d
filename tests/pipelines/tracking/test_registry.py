"""MLflow's registry: versions by their files and evidence, and the champion's alias."""

import pytest

from cluster.errors import UserError
from cluster.settings import Settings
from pipelines.tracking import registry


def content(**changes):
    return {
        "data": {"table": "/tables/split", "version": "3", "split": "s" * 64},
        "recipe": {"name": "small", "seed": 17},
        "reports": {"evaluate": {"key": "e" * 64, "verdict": "open"}},
        "waivers": [],
        "train": {
            "model": "/models/small",
            "model_fingerprint": "m" * 64,
            "base": "owner/base",
            "base_fingerprint": "b" * 64,
            "method": "lora",
            "run_id": "",
        },
    } | changes


@pytest.fixture
def settings(chain):
    return chain.workspace.settings


def test_the_same_model_on_the_same_evidence_is_one_version(settings):
    assert registry.register(settings, "small", content()) == "1"
    assert registry.register(settings, "small", content()) == "1"


def test_other_weights_another_evaluation_or_a_new_waiver_is_another_version(settings):
    changes = [
        {},
        {"train": content()["train"] | {"model_fingerprint": "n" * 64}},
        {"reports": {"evaluate": {"key": "f" * 64, "verdict": "open"}}},
        {"waivers": [{"gate": "data.size", "by": "ada"}]},
    ]
    assert [registry.register(settings, "small", content(**each)) for each in changes] == ["1", "2", "3", "4"]


def test_the_champion_moves(settings):
    assert registry.champion(settings, "small") is None
    for model in ("m", "n"):
        version = registry.register(
            settings, "small", content(train=content()["train"] | {"model_fingerprint": model * 64})
        )
        registry.set_champion(settings, "small", version)
        assert registry.champion(settings, "small") == version


def test_a_version_links_to_the_run_that_trained_it(settings):
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
    run = client.create_run(client.create_experiment("runs")).info.run_id
    registry.register(settings, "small", content(train=content()["train"] | {"run_id": run}))
    version = client.get_model_version("small", "1")
    assert (version.run_id, version.source) == (run, "/models/small")


def test_a_registry_that_refuses_is_a_sentence(settings):
    with pytest.raises(UserError, match="The model registry refused"):
        registry.set_champion(settings, "small", "99")


def test_a_registry_that_is_away_is_a_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("SLUICE_TRACKING", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="The model registry refused"):
        registry.champion(Settings.from_environment(), "small")
