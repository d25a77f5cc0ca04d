"""W&B beside MLflow: offline, and away."""

import importlib.util

import pytest

from cluster.errors import UserError
from pipelines.tracking import weights_and_biases

TAGS = {"sluice.recipe": "small", "sluice.stage": "train", "sluice.key": "abc"}


def test_a_missing_package_is_told_before_training_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="names wandb, which is not installed") as refused:
        weights_and_biases.check_installed()
    assert "pip install sluice[wandb]" in refused.value.remedy


def test_what_ails_it_is_no_reason_to_stop(monkeypatch, caplog):
    def away(*_):
        raise ConnectionError("no route")

    monkeypatch.setattr(weights_and_biases, "_begin", away)
    mirror = weights_and_biases.Mirror("small-abc", TAGS, {})
    mirror.log({"train/loss": 1.0}, 1, 1.0)
    mirror.end("FINISHED")
    assert "no route" in caplog.text


def test_without_a_network_a_run_is_kept_on_disk_with_its_points(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    mirror = weights_and_biases.Mirror("small-abc", TAGS, {"learning_rate": 1e-3})
    for step in (1, 2, 2, 3):
        mirror.log({"train/loss": 1.0 / step}, step, 1_700_000_000.0 + step)
    mirror.end("FINISHED")

    [kept] = tmp_path.rglob("run-small-abc.wandb")
    content = kept.read_bytes()
    assert content.count(b"train/loss") >= 4
    # Its own time, as W&B writes numbers.
    assert b"1.700000003e+09" in content and b"learning_rate" in content
