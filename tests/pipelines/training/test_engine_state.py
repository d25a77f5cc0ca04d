"""A run goes on with another number of workers and at another ZeRO stage."""

import dataclasses
from pathlib import Path

import pytest

from pipelines.training.checkpoints import CheckpointStore
from pipelines.training.fragments import FragmentFiles
from tests.pipelines.training.conftest import job_maker
from tests.pipelines.training.workers import run_here, run_workers

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("process_group")]

STEPS, HALF = 6, 3
SETTINGS = {"max_steps": STEPS, "eval_steps": STEPS, "learning_rate": 3e-3, "method": "full"}


def settings(stage, dtype="float32"):
    return SETTINGS | {"deepspeed": {"stage": stage}, "dtype": dtype}


def at_stage(job, stage):
    return dataclasses.replace(job, train=job.train | {"deepspeed": {"stage": stage, "offload_optimizer": "none"}})


@pytest.fixture(scope="module")
def make(tmp_path_factory, tiny_model, models_folder):
    from pipelines.workspace import Workspace
    from tests.conftest import _point_environment_at

    with pytest.MonkeyPatch.context() as monkeypatch:
        _point_environment_at(tmp_path_factory.mktemp("elsewhere"), models_folder, monkeypatch)
        yield job_maker(Workspace(), tiny_model)


@pytest.fixture(scope="module")
def runs(make, process_group, tmp_path_factory):
    """Every run of this file, by name: two workers start once."""
    begun_alone = make("one-to-two", settings(0))
    found = {
        "alone": run_here(make("alone", settings(0)), 0, 1)[0],
        "alone in bfloat16": run_here(make("alone-bf16", settings(1, "bfloat16")), 0, 1)[0],
    }
    run_here(begun_alone, 0, 1, HALF)
    pair, crossing = make("two-to-one", settings(2)), make("two-to-three", settings(2))
    again, bfloat = make("again", settings(2)), make("bf16", settings(1, "bfloat16"))
    lora = make("lora", settings(1) | {"method": "lora"})
    done = run_workers(
        tmp_path_factory.mktemp("pair"),
        [
            (make("pair", settings(2)), None),
            (pair, HALF),
            (crossing, HALF),
            (at_stage(crossing, 3), None),
            (again, HALF),
            (again, None),
            (bfloat, HALF),
            (at_stage(begun_alone, 2), None),
            (lora, HALF),
            (at_stage(lora, 3), None),
        ],
    )
    names = "two", None, None, "2 to 3", None, "the same", None, "1 to 2 workers", None, "lora 1 to 3"
    found |= {name: outcome for name, (outcome, _) in zip(names, done, strict=True) if name}
    found["2 to 1 workers"] = run_here(pair, 0, 1)[0]
    found["bfloat16"] = run_here(at_stage(bfloat, 2), 0, 1)[0]
    found["alone with adapters"] = run_here(make("alone-lora", settings(0) | {"method": "lora"}), 0, 1)[0]
    return found


def test_with_the_same_workers_and_stage_nothing_changes(runs):
    assert runs["the same"]["last_validation_loss"] == pytest.approx(runs["two"]["last_validation_loss"], rel=1e-4)
    assert runs["the same"]["last_train_loss"] == pytest.approx(runs["two"]["last_train_loss"], rel=1e-4)


@pytest.mark.parametrize("crossing", ["2 to 1 workers", "1 to 2 workers", "2 to 3"])
def test_another_number_of_workers_or_stage_goes_on_to_the_same_loss(runs, crossing):
    assert runs[crossing]["step"] == STEPS
    assert runs[crossing]["last_validation_loss"] == pytest.approx(runs["alone"]["last_validation_loss"], rel=1e-3)
    assert runs[crossing]["last_train_loss"] == pytest.approx(runs["alone"]["last_train_loss"], rel=1e-3)
    assert runs[crossing]["last_validation_loss"] < runs["alone"]["baseline_loss"]


def test_adapters_go_on_at_another_stage(runs):
    one, other = runs["lora 1 to 3"], runs["alone with adapters"]
    assert one["last_validation_loss"] == pytest.approx(other["last_validation_loss"], rel=1e-3)


def test_masters_of_bfloat16_weights_go_on_with_fewer_workers_and_another_stage(runs):
    one, other = runs["bfloat16"], runs["alone in bfloat16"]
    assert one["last_validation_loss"] == pytest.approx(other["last_validation_loss"], rel=0.01)
    assert one["last_train_loss"] == pytest.approx(other["last_train_loss"], rel=0.01)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_checkpoint_holds_the_very_weights_and_moments_whatever_the_stage(make, runs, stage):
    import torch
    from safetensors.torch import load_file

    job = make(f"exact-{stage}", settings(stage) | {"max_steps": 2, "eval_steps": 2})
    outcome, _ = run_here(job, 0, 1)
    store = CheckpointStore(job.checkpoints)
    [step] = store.complete()
    files = FragmentFiles(store.fetch(step, Path()).glob("state-*.safetensors"))
    exported = load_file(Path(outcome["model"], "model.safetensors"))

    for name, weights in exported.items():
        found = torch.full_like(weights, float("nan")).flatten()
        assert files.read("weight", f"model.{name}", 0, found)
        assert torch.equal(found.view_as(weights), weights)
        assert files.kinds(f"model.{name}") == ["exp_avg", "exp_avg_sq", "step", "weight"]
        assert files.first("step", f"model.{name}").item() == 2


def test_what_a_checkpoint_lacks_is_named(make, tmp_path):
    from cluster.errors import UserError
    from pipelines.recipe import Train
    from pipelines.training.engine import build_model, start_engine
    from pipelines.training.engine_state import load_engine
    from pipelines.training.fragments import write_fragments

    job = make("lacking", settings(0))
    train = Train.model_validate(job.train)
    engine = start_engine(build_model(train, Path(job.base["folder"]), 0), train, 1)
    write_fragments(tmp_path / "state-00000.safetensors", [])

    with pytest.raises(UserError, match=r"lacks \d+ parts: model\.model\."):
        load_engine(engine, [tmp_path / "state-00000.safetensors"])
