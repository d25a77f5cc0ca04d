"""Every shipped recipe parses, and the three of the first release are what they promise."""

import subprocess
import sys

import pytest

from cluster.connect import ROOT
from pipelines.recipe_file import load_recipe

SHIPPED = sorted((ROOT / "pipelines" / "recipes").glob("*.yaml"))
DEMO, LEGAL, TRAP = (ROOT / "pipelines" / "recipes" / f"{name}.yaml" for name in ("demo", "legal-summaries", "trap"))


def test_the_recipes_are_there():
    assert {DEMO, LEGAL, TRAP} <= set(SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_recipe_parses_and_says_what_it_is_for(path):
    load_recipe(path)
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_no_two_recipes_share_a_name():
    names = [load_recipe(path).name for path in SHIPPED]
    assert len(set(names)) == len(names)


def test_the_demo_is_small_enough_for_a_laptop_and_large_enough_for_the_gate():
    recipe = load_recipe(DEMO)
    assert recipe.dataset.max_examples >= recipe.audit.min_examples == 1000
    assert recipe.train.max_steps <= 60 and recipe.sweep.num_samples == 3
    assert recipe.cluster.num_workers == 1


def test_the_legal_recipe_is_full_fine_tuning_with_zero_3_on_eight_a100():
    recipe = load_recipe(LEGAL)
    assert recipe.base.base == "mistralai/Mistral-7B-Instruct-v0.2"
    assert (recipe.train.method, recipe.train.peak_learning_rate, recipe.train.num_train_epochs) == ("full", 2e-5, 3)
    assert (recipe.train.global_batch_size, recipe.train.deepspeed.stage) == (16, 3)
    assert (recipe.cluster.num_workers, recipe.cluster.accelerator_type) == (8, "A100")


@pytest.mark.parametrize("stage", ["audit", "train", "evaluate"])
def test_the_legal_recipe_dry_runs_here_and_says_which_data_are_missing(stage, workspace):
    # A process of its own: the way people run it, with nothing loaded before.
    command = [sys.executable, "-m", f"pipelines.{stage}", str(LEGAL), "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "learning_rate: 2.0e-05" in done.stdout
    assert "8 worker(s) x 1 sequence(s) x 2 accumulated = 16; learning rate 2e-05, ZeRO 3" in done.stdout
    missing = done.stdout[done.stdout.index("# missing:") :]
    assert "legal-briefs/*.jsonl: no such file" in missing


def test_what_a_dry_run_prints_is_itself_the_recipe(workspace, tmp_path):
    command = [sys.executable, "-m", "pipelines.audit", str(DEMO), "--dry-run", "train.lora_r=4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    copy = tmp_path / "copy.yaml"
    copy.write_text(done.stdout)
    assert load_recipe(copy) == load_recipe(DEMO, ["train.lora_r=4"])
