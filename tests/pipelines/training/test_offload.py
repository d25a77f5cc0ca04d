"""State that waits on a disk: refused where it cannot be, and the same training where it can."""

from pathlib import Path

import pytest

from cluster.errors import UserError
from pipelines.recipe import DeepSpeed
from pipelines.training import offload
from pipelines.training.offload import close_folder, open_folder

SETTINGS = {"max_steps": 6, "eval_steps": 3, "learning_rate": 3e-3, "method": "full", "dtype": "float32"}


def on_disk(folder):
    return DeepSpeed(stage=3, offload_optimizer="nvme", nvme_path=str(folder))


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
def test_training_from_a_disk_is_the_same_and_goes_on_from_its_checkpoint(
    process_group, ray_cluster, tiny_model, tmp_path
):
    from tests.pipelines.training.conftest import job_maker
    from tests.pipelines.training.workers import run_here

    make = job_maker(ray_cluster, tiny_model)
    plain = make("in-memory", SETTINGS | {"deepspeed": {"stage": 3}})
    disk = make("on-disk", SETTINGS | {"deepspeed": on_disk(tmp_path).model_dump()})
    expected, _ = run_here(plain, 0, 1)
    run_here(disk, 0, 1, 3)
    outcome, _ = run_here(disk, 0, 1)
    for figure in ("last_train_loss", "last_validation_loss"):
        assert outcome[figure] == pytest.approx(expected[figure], rel=1e-5)
    # Nothing stays behind.
    assert not any(tmp_path.iterdir())
