"""The loop in this process, with a tiny model and DeepSpeed."""

import json
from pathlib import Path

import pytest

from pipelines.training.checkpoints import CheckpointStore
from tests.pipelines.training.conftest import loss_of_export

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("process_group")]


def test_one_pass_of_eight_rows_equals_eight_passes_of_one(make_job, run):
    wide, _ = run(make_job("wide", {"per_device_train_batch_size": 8, "max_steps": 3, "eval_steps": 1}))
    deep, _ = run(make_job("deep", {"per_device_train_batch_size": 1, "max_steps": 3, "eval_steps": 1}))

    for one, other in zip(wide["history"], deep["history"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)


def test_packed_and_unpacked_training_see_the_same_tokens(make_job, run):
    packed, _ = run(make_job("packed", {"num_train_epochs": 1}))
    single, _ = run(make_job("single", {"num_train_epochs": 1, "packing": False}))

    assert packed["supervised_tokens"] == single["supervised_tokens"]
    assert packed["tokens"] == single["tokens"]
    assert packed["baseline_loss"] == pytest.approx(single["baseline_loss"], rel=1e-4)
    assert packed["step"] < single["step"]


@pytest.mark.parametrize(("method", "stage"), [("lora", 0), ("full", 0), ("lora", 3)])
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(make_job, run, method, stage):
    settings = {
        "method": method,
        "deepspeed": {"stage": stage},
        "max_steps": 6,
        "eval_steps": 2,
        "lora_dropout": 0.1,
        "learning_rate": 3e-3,
    }
    whole, _ = run(make_job("whole", settings))
    stopped, _ = run(make_job("halves", settings), stop_at=3)
    resumed, heard = run(make_job("halves", settings))

    assert (stopped["status"], stopped["step"]) == ("stopped", 3)
    assert heard.of("resumed") == [3]
    assert heard.of("step") == [4, 5, 6]
    assert heard.of("baseline") == []
    assert resumed["baseline_loss"] == whole["baseline_loss"]
    assert resumed["last_validation_loss"] == pytest.approx(whole["last_validation_loss"], rel=1e-4)
    # The stop fell between two validations: the steps before it count in the next training loss.
    for one, other in zip(resumed["history"], whole["history"], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(make_job, run):
    settings = {"max_steps": 4, "eval_steps": 1, "learning_rate": 1e-3}
    job = make_job("damaged", settings)
    run(job, stop_at=3)
    assert CheckpointStore(job.checkpoints).complete() == [2, 3]
    file = max(Path(job.checkpoints, "step-00000003").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])

    _, heard = run(job)

    assert heard.of("damaged") == [3]
    assert heard.of("resumed") == [2]
    assert heard.of("step") == [3, 4]


@pytest.mark.parametrize(("method", "stage"), [("lora", 0), ("lora", 3), ("full", 3)])
def test_patience_ends_the_run_and_the_best_weights_go_out(make_job, run, method, stage):
    # The validation side answers the same prompts otherwise: what is learnt from training costs there.
    settings = {"learning_rate": 3e-2, "max_steps": 40, "eval_steps": 1, "early_stopping_patience": 3}
    settings |= {"method": method, "deepspeed": {"stage": stage}, "lr_scheduler_type": "constant"}
    rows = {"train": answered("list map"), "validation": answered("graph node")}
    job = make_job(f"patience-{method}-{stage}", settings, rows)
    outcome, heard = run(job)

    losses = dict(zip(heard.of("validation"), heard.of("validation", "loss"), strict=True))
    best = min(losses, key=losses.get)
    assert outcome["step"] == best + 3 < 40
    assert outcome["kept_step"] == best
    assert "no improvement in 3 validations" in outcome["stopped_because"]
    assert loss_of_export(job, outcome["model"]) == pytest.approx(losses[best], rel=1e-3)


def answered(answer):
    """Eight conversations that all end in `answer`."""
    turns = [
        [{"role": "user", "content": f"Summarise: {n}"}, {"role": "assistant", "content": answer}] for n in range(8)
    ]
    return [(f"example-{n}", json.dumps(messages)) for n, messages in enumerate(turns)]


@pytest.mark.parametrize(("method", "stage"), [("lora", 0), ("lora", 3), ("full", 0), ("full", 3)])
def test_what_goes_out_has_the_loss_that_was_validated(make_job, run, method, stage):
    job = make_job(
        f"out-{method}-{stage}", {"method": method, "deepspeed": {"stage": stage}, "max_steps": 3, "eval_steps": 3}
    )
    outcome, _ = run(job)

    assert outcome["last_validation_loss"] < outcome["baseline_loss"]
    assert loss_of_export(job, outcome["model"]) == pytest.approx(outcome["last_validation_loss"], rel=1e-3)


def test_a_problem_of_one_worker_is_the_outcome_of_all(monkeypatch, make_job, run):
    from pipelines.training import together

    def elsewhere(told, mine):
        told[:] = [mine, ("tiny: this machine has other weights.", "Pin it.")]

    monkeypatch.setattr(together.dist, "all_gather_object", elsewhere)
    outcome, heard = run(make_job("refused"))

    assert outcome == {"status": "failed", "message": "tiny: this machine has other weights.", "remedy": "Pin it."}
    assert [event["kind"] for event in heard.events] == ["joined"]


def test_a_loss_that_is_no_number_names_the_step_and_its_examples(make_job, run):
    job = make_job("diverged", {"learning_rate": 1e30, "max_steps": 20, "method": "full", "warmup_steps": 0})
    outcome, heard = run(job)

    assert outcome["status"] == "failed"
    assert "diverged at step" in outcome["message"]
    assert "example-0" in outcome["message"]
    assert "learning_rate" in outcome["remedy"]
    assert len(heard.of("step")) < 20


def test_auto_trains_in_the_arithmetic_of_this_machine_and_says_which(make_job, run):
    from safetensors.torch import load_file

    from pipelines.models.precision import native_arithmetic

    outcome, heard = run(make_job("auto", {"dtype": "auto", "max_steps": 2}))

    assert outcome["dtype"] == native_arithmetic("cpu")
    weights = load_file(Path(outcome["model"], "adapter_model.safetensors"))
    assert {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()} == {outcome["dtype"]}
    assert all(norm > 0 for norm in heard.of("step", "grad_norm"))


def test_the_gradient_norm_is_the_same_whether_deepspeed_keeps_it_or_not(make_job, run):
    norms = {
        stage: run(make_job(f"norm-{stage}", {"max_steps": 3, "deepspeed": {"stage": stage}}))[1].of(
            "step", "grad_norm"
        )
        for stage in (0, 1)
    }

    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
