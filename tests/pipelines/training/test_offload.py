"""State that waits on a disk: refused where it cannot be, and the same training where it can."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import operators
from cluster.errors import UserError
from pipelines.recipe import DeepSpeed
from pipelines.training import offload
from pipelines.training.offload import close_folder, open_folder

SETTINGS = {"max_steps": 6, "eval_steps": 3, "learning_rate": 3e-3, "method": "full", "dtype": "float32"}


def on_disk(folder, **also):
    return DeepSpeed(stage=3, offload_optimizer="nvme", nvme_path=str(folder), **also)


def test_what_waits_in_memory_needs_no_folder(tmp_path):
    assert open_folder(DeepSpeed(stage=2, offload_optimizer="cpu"), "run", 0) is None
    close_folder(None)


def test_a_disk_that_is_not_there_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="is no folder") as refused:
        open_folder(on_disk(tmp_path / "gone"), "run", 0)
    assert "offload to cpu" in refused.value.remedy


def test_each_worker_has_a_folder_of_its_own_cleared_of_what_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(offload, "load_disk_operators", lambda: None)
    first, second = (open_folder(on_disk(tmp_path), "run", rank) for rank in range(2))
    assert first != second
    (first / "left.swp").touch()
    assert not any(open_folder(on_disk(tmp_path), "run", 0).iterdir())
    close_folder(first)
    assert second.is_dir()
    close_folder(second)
    assert not any(tmp_path.iterdir())


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/usr/include/libaio.h").exists(), reason="needs libaio's headers (libaio-dev)")
def test_the_operators_for_a_disk_load_though_a_build_has_died():
    for name in operators.DISK_OPERATORS:
        folder = operators.extensions_folder() / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
    # A process of its own: what is loaded once is not looked for again.
    code = "from cluster import connect, operators; connect.prepare_environment(); operators.load_disk_operators()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=400)


@pytest.fixture
def wide_model(tiny_model, tmp_path_factory):
    """The tiny model with more weights: of less than a mebibyte DeepSpeed moves nothing to a disk."""
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "wide"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(tiny_model)
    config.intermediate_size = 2048
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.cluster
@pytest.mark.parametrize("parameters", ["none", "nvme"])
@pytest.mark.skipif(not Path("/usr/include/libaio.h").exists(), reason="needs libaio's headers (libaio-dev)")
def test_training_from_a_disk_is_the_same_and_goes_on_from_its_checkpoint(
    parameters, process_group, ray_cluster, wide_model, tmp_path, monkeypatch
):
    from pipelines.training import worker
    from tests.pipelines.training.conftest import job_maker
    from tests.pipelines.training.workers import run_here

    waited = []

    def close(folder):
        if folder:
            waited.append({path.name for path in folder.rglob("*.swp")})
        close_folder(folder)

    monkeypatch.setattr(worker, "close_folder", close)
    make = job_maker(ray_cluster, wide_model)
    plain = make(f"in-memory-{parameters}", SETTINGS | {"deepspeed": {"stage": 3}})
    disk = make(
        f"on-disk-{parameters}", SETTINGS | {"deepspeed": on_disk(tmp_path, offload_param=parameters).model_dump()}
    )
    expected, _ = run_here(plain, 0, 1)
    run_here(disk, 0, 1, 3)
    outcome, _ = run_here(disk, 0, 1)
    for figure in ("last_train_loss", "last_validation_loss"):
        assert outcome[figure] == pytest.approx(expected[figure], rel=1e-5)
    # Weights and both moments did wait there, before and after the restart; nothing stays behind.
    assert [len(names) >= 3 for names in waited] == [True, True], waited
    assert not any(tmp_path.iterdir())
