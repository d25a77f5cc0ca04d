"""Training through Ray Train and DeepSpeed, with a tiny model."""

from pathlib import Path

import pytest

from cluster.errors import StageFailed, UserError
from pipelines.fingerprint import folder_fingerprint
from pipelines.progress import Progress
from pipelines.training.checkpoints import CheckpointStore

pytestmark = pytest.mark.cluster


@pytest.fixture
def make_job(ray_cluster, tiny_model):
    from tests.pipelines.training.conftest import job_maker

    return job_maker(ray_cluster, tiny_model)


def place(workers=1):
    from pipelines.training.trainer import Place

    return Place(num_workers=workers, use_gpu=False, accelerator_type=None, cpus_per_worker=1.0)


def run(job, workspace, name, workers=1, on_event=lambda event: None):
    from pipelines.training.trainer import fit

    return fit(job, place(workers), name, workspace, Progress(quiet=True), on_event)


SHORT = {"max_steps": 4, "eval_steps": 2, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def alone(ray_cluster, tiny_model):
    """One worker at ZeRO-0: what the others are compared with."""
    from tests.pipelines.training.conftest import job_maker

    job = job_maker(ray_cluster, tiny_model)("alone", SHORT)
    return run(job, ray_cluster, "alone")


def test_a_stop_leaves_a_checkpoint_and_the_same_command_goes_on(make_job, ray_cluster, monkeypatch):
    from pipelines.training import trainer

    job = make_job("stopped", {"max_steps": 4000, "eval_steps": 1000})
    steps = []
    monkeypatch.setattr(trainer, "stop_requested", lambda workspace: bool(steps))
    with pytest.raises(StageFailed, match="stop requested") as stopped:
        run(job, ray_cluster, "stopped", on_event=lambda e: e["kind"] == "step" and steps.append(e["step"]))

    assert stopped.value.exit_code == 1
    [kept] = CheckpointStore(job.checkpoints).complete()
    assert kept == steps[-1] < 4000


def test_checkpoints_of_an_earlier_version_are_refused_with_both_ways_out(make_job, ray_cluster):
    import json

    from pipelines.training.trainer import check_resumable

    job = make_job("world")
    folder = Path(job.checkpoints, "step-00000003")
    folder.mkdir(parents=True)
    (folder / "manifest-0.json").write_text(json.dumps({"version": 1, "step": 3, "rank": 0, "world": 1, "files": {}}))

    with pytest.raises(UserError, match="earlier version") as refused:
        check_resumable(job)
    assert "--fresh" in refused.value.remedy


def test_with_room_for_two_of_four_workers_those_learn_what_one_learns_alone(make_job, ray_cluster, alone, capsys):
    """At ZeRO-3; `test_two_workers.py` compares every stage, without Ray."""
    import dataclasses

    import ray

    from pipelines.training.trainer import fit

    # Room for two, and for no third.
    each = ray.cluster_resources()["CPU"] * 3 // 8
    asked = dataclasses.replace(place(4), min_workers=2, cpus_per_worker=each)
    job = make_job("fewer", SHORT | {"deepspeed": {"stage": 3}})
    outcome = fit(job, asked, "fewer", ray_cluster, Progress(), lambda event: None)

    assert outcome["workers"] == 2
    assert "training with 2 of 4 workers" in capsys.readouterr().err
    assert outcome["last_validation_loss"] == pytest.approx(alone["last_validation_loss"], rel=0.02)
    assert outcome["last_train_loss"] == pytest.approx(alone["last_train_loss"], rel=0.02)
    assert outcome["last_validation_loss"] < outcome["baseline_loss"]
    assert outcome["supervised_tokens"] == alone["supervised_tokens"]


@pytest.mark.parametrize("fewest", [None, 1])
def test_workers_that_find_no_place_end_the_run_with_a_sentence(make_job, ray_cluster, fewest):
    import dataclasses

    from pipelines.training.trainer import fit

    asked = dataclasses.replace(place(), cpus_per_worker=1000.0, start_timeout_s=2.0, min_workers=fewest)
    with pytest.raises(StageFailed, match="No machines for 1 workers of 1000 CPU in 2 seconds") as ended:
        fit(
            make_job(f"nowhere-{fewest}"),
            asked,
            f"nowhere-{fewest}",
            ray_cluster,
            Progress(quiet=True),
            lambda event: None,
        )
    assert "cluster.start_timeout_s" in ended.value.remedy


def test_what_goes_out_is_kept_whole_and_names_its_base(make_job, ray_cluster, alone):
    import json

    folder = Path(alone["model"])
    assert json.loads((folder / "sluice.json").read_text())["base_fingerprint"] == "tiny"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert len(folder_fingerprint(folder)) == 64
