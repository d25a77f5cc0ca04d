"""LoRA in fewer passes: the outputs and gradients of PEFT's layers."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipelines.training.low_rank import quicken


def adapted(tiny_model, dtype="float32", **settings):
    from pipelines.models.load import load_causal_lm

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    model = get_peft_model(load_causal_lm(tiny_model, dtype), config, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            # PEFT begins with zeros, for which no update would be seen.
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def outcome(model, dtype=torch.float32):
    tokens = torch.arange(3, 45).reshape(2, 21)
    model.zero_grad()
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    logits.square().mean().backward()
    gradients = {name: p.grad.float().clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_outputs_and_gradients_are_those_of_peft(tiny_model, settings):
    usual = adapted(tiny_model, **settings)
    quick = copy.deepcopy(usual)
    assert quicken(quick) == 14
    (expected, gradients), (found, others) = outcome(usual), outcome(quick)

    assert torch.allclose(found, expected, atol=1e-5)
    assert gradients.keys() == others.keys() and len(others) == 28
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_in_bfloat16_it_is_as_near_to_the_truth_as_peft(tiny_model):
    usual = adapted(tiny_model, "bfloat16")
    quick, exact = copy.deepcopy(usual), copy.deepcopy(usual).float()
    quicken(quick)
    (truth, slopes), (theirs, their_slopes), (ours, our_slopes) = outcome(exact), outcome(usual), outcome(quick)

    assert (ours - truth).norm() <= 1.3 * (theirs - truth).norm()
    off = [sum(float((each[name] - slopes[name]).norm()) for name in slopes) for each in (our_slopes, their_slopes)]
    assert off[0] <= 1.3 * off[1]


def test_an_adapter_that_is_switched_off_is_off(tiny_model):
    model = adapted(tiny_model)
    tokens = torch.arange(3, 24).reshape(1, 21)
    with model.disable_adapter():
        expected = model(input_ids=tokens).logits
        quicken(model)
        assert torch.equal(model(input_ids=tokens).logits, expected)
    assert not torch.allclose(model(input_ids=tokens).logits, expected)


def test_what_is_not_plain_keeps_peft_s_way(tiny_model):
    assert quicken(adapted(tiny_model, lora_dropout=0.1)) == 0
    assert quicken(adapted(tiny_model, use_dora=True)) == 0


def test_names_and_parameters_stay_as_they_are_saved(tiny_model, tmp_path):
    model = adapted(tiny_model)
    before = model.state_dict().keys()
    quicken(model)
    assert model.state_dict().keys() == before
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
