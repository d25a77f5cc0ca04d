"""The ways to train beside plain LoRA: kinds of adapters, offload, recomputed activations, compiled layers."""

import json
from pathlib import Path

import pytest

from cluster.errors import UserError
from pipelines.recipe import Train
from pipelines.training.compiling import compile_layers
from pipelines.training.engine import deepspeed_config
from tests.pipelines.training.conftest import loss_of_export

SHORT = {"max_steps": 3, "eval_steps": 1, "learning_rate": 3e-3}


def test_what_deepspeed_is_told_of_offload():
    given = {"stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"}
    told = deepspeed_config(Train.model_validate({"deepspeed": given}), 1)["zero_optimization"]

    assert told["offload_optimizer"] == told["offload_param"] == {"device": "cpu"}
    assert "offload_param" not in deepspeed_config(Train(), 1)["zero_optimization"]
    disk = {"stage": 3, "offload_optimizer": "nvme", "offload_param": "cpu", "nvme_path": "/fast"}
    told = deepspeed_config(Train.model_validate({"deepspeed": disk}), 1, Path("/fast/one"))["zero_optimization"]
    assert told["offload_optimizer"] == {"device": "nvme", "nvme_path": "/fast/one"}
    assert told["offload_param"] == {"device": "cpu"}


def test_a_base_is_read_in_4_bits_with_quantised_constants(monkeypatch):
    import torch

    from pipelines.models import quantised

    monkeypatch.setattr(quantised, "installed", lambda: False)
    with pytest.raises(UserError, match="needs bitsandbytes") as refused:
        quantised.quantising_options("bfloat16")
    assert "quantised" in refused.value.remedy
    monkeypatch.setattr(quantised, "installed", lambda: True)
    config = quantised.quantising_options("bfloat16")["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "packed"),
    [({}, True), ({"packing": False}, False), ({"packing": False, "objective": "orpo"}, True)],
)
def test_whatever_puts_several_texts_into_a_row_needs_a_base_that_keeps_them_apart(
    tiny_model, monkeypatch, settings, packed
):
    from pipelines.training import engine

    asked = []
    monkeypatch.setattr(engine, "attend_by_examples", lambda model, *, packed: asked.append(packed))
    engine.build_model(Train.model_validate({"dtype": "float32"} | settings), tiny_model, 0)
    assert asked == [packed]


def test_qlora_is_refused_where_no_worker_has_a_gpu():
    from pipelines.training.check import check_device

    check_device(Train(method="qlora"), use_gpu=True)
    check_device(Train(method="lora"), use_gpu=False)
    with pytest.raises(UserError, match="needs GPUs, and these workers have none") as refused:
        check_device(Train(method="qlora"), use_gpu=False)
    assert "use_gpu" in refused.value.remedy


def test_a_base_whose_layers_cannot_be_told_is_not_compiled():
    from torch import nn

    with pytest.raises(UserError, match="cannot be told"):
        compile_layers(nn.Linear(2, 2))


def compiled_graphs():
    """A function that tells how many graphs were compiled since."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


@pytest.mark.cluster
def test_layers_are_compiled_once_for_all_lengths_and_give_the_same(tiny_model):
    from pipelines.models.load import load_causal_lm
    from pipelines.training.attention import attend_by_examples
    from pipelines.training.bins import Bin
    from pipelines.training.losses import Batch, SupervisedLoss

    eager, compiled = (load_causal_lm(tiny_model, "float32").train() for _ in range(2))
    for model in (eager, compiled):
        attend_by_examples(model, packed=True)
    compile_layers(compiled, "aot_eager")
    graphs, seen = compiled_graphs(), []
    for rows, length in ((2, 40), (4, 33), (1, 64), (3, 57)):
        tokens = [(7 * place) % 500 + 3 for place in range(length)]
        # Two examples in a row: the attention must keep them apart in the compiled layers too.
        row = Bin(tokens, [0] * (length - 6) + [1] * 6, [length // 2, length - length // 2], ["a", "b"])
        batch = Batch.of([row] * rows)
        losses = []
        for model in (eager, compiled):
            model.zero_grad()
            loss = SupervisedLoss(model)(batch.tokens, batch.positions, batch.targets, batch.ends)
            loss.backward()
            losses.append(float(loss.detach()))
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
            assert one.grad == pytest.approx(other.grad, rel=1e-3, abs=1e-4)
        seen.append(graphs())
    assert seen[0] >= 1
    # No length and no number of examples has a graph of its own.
    assert seen[-1] == seen[0]


def close(one, other, rel):
    assert len(one["history"]) == len(other["history"]) == SHORT["max_steps"]
    for first, second in zip(one["history"], other["history"], strict=True):
        assert first == pytest.approx(second, rel=rel)


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
class TestTraining:
    """The loop in this process, with a tiny model and DeepSpeed."""

    @pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}])
    def test_adapters_of_other_kinds_learn_and_go_out_as_what_they_are(self, make_job, run, options):
        job = make_job("kind", SHORT | options)
        outcome, _ = run(job)

        written = json.loads(Path(outcome["model"], "adapter_config.json").read_text())
        assert {name: written[name] for name in options} == options
        assert outcome["last_validation_loss"] < outcome["baseline_loss"]
        assert loss_of_export(job, outcome["model"]) == pytest.approx(outcome["last_validation_loss"], rel=1e-3)

    def test_offload_to_the_cpu_learns_the_same(self, make_job, run):
        plain, _ = run(make_job("plain", SHORT, checkpoints=""))
        for name, deepspeed in {
            "two": {"stage": 2, "offload_optimizer": "cpu"},
            "three": {"stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"},
        }.items():
            offloaded, _ = run(make_job(name, SHORT | {"deepspeed": deepspeed}, checkpoints=""))
            close(offloaded, plain, 1e-3)

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_recomputed_activations_change_nothing(self, make_job, run, method):
        plain, _ = run(make_job("kept", SHORT | {"method": method}, checkpoints=""))
        again, _ = run(
            make_job("recomputed", SHORT | {"method": method, "gradient_checkpointing": True}, checkpoints="")
        )

        close(again, plain, 1e-5)

    def test_the_recipe_decides_whether_layers_are_compiled(self, make_job, run, monkeypatch):
        from pipelines.training import engine

        plain, _ = run(make_job("eager", SHORT, checkpoints=""))
        graphs = compiled_graphs()
        # Without a compiler: that its graphs give the same is shown above.
        monkeypatch.setattr(engine, "compile_layers", lambda model: compile_layers(model, "eager"))
        compiled, _ = run(make_job("compiled", SHORT | {"torch_compile": True}, checkpoints=""))

        assert graphs()
        close(compiled, plain, 1e-4)
