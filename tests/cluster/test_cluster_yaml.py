"""The cluster file against Ray's own schema and preparation, and against what the project promises of it."""

import copy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

from cluster.settings import VARIABLES
from pipelines.recipe_file import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def prepared(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(cluster))
    validate_config(config)
    return config


def test_ray_prepares_and_validates_it(cluster):
    config = prepared(cluster)
    assert config["head_node_type"] == "head"
    assert config["available_node_types"]["head"]["max_workers"] == 0


def test_the_schema_would_refuse_a_wrong_key(cluster):
    with pytest.raises(ValidationError):
        prepared(cluster | {"idle_timeout": 10})


def test_a100_nodes_come_from_nothing_and_the_head_has_no_gpu(cluster):
    a100 = cluster["available_node_types"]["a100"]
    assert (a100["min_workers"], a100["resources"]["GPU"]) == (0, 8)
    assert a100["node_config"]["InstanceType"] == "p4d.24xlarge"
    assert a100["max_workers"] <= cluster["max_workers"]
    head = cluster["available_node_types"]["head"]
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"], "the head is never on spot"


def test_a_shipped_recipe_for_a100_fits_the_largest_cluster(cluster):
    recipe = load_recipe(ROOT / "pipelines" / "recipes" / "legal-summaries.yaml")
    a100 = cluster["available_node_types"]["a100"]
    assert recipe.cluster.num_workers <= a100["resources"]["GPU"] * a100["max_workers"]
    if recipe.cluster.accelerator_type:
        assert f"accelerator_type:{recipe.cluster.accelerator_type}" in a100["resources"]


def test_every_node_starts_with_token_authentication_and_the_addresses(cluster):
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        start = commands[-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_USAGE_STATS_ENABLED=0" in start
        for name in ("SLUICE_STORAGE", "SLUICE_TRACKING", "SLUICE_MODELS"):
            assert name in VARIABLES
            assert f"{name}=" in start
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1], "jobs come through a tunnel"


def test_nodes_install_the_lock_and_nothing_else_of_ours(cluster):
    assert any("pip install -r ~/requirements.lock" in command for command in cluster["setup_commands"])
    assert cluster["file_mounts"]["~/requirements.lock"] == "requirements.lock"
