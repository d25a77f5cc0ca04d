"""Many models around the same frozen tensors."""

import torch

from pipelines.search.resident_base import ResidentBase


def test_models_share_their_weights_and_nothing_else(tiny_model):
    base = ResidentBase()
    first, second = base.load(tiny_model, "float32"), base.load(tiny_model, "float32")
    assert first is not second and first.config is not second.config
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert pairs and all(one is other for one, other in pairs)
    modules = zip(first.modules(), second.modules(), strict=True)
    assert not any(one is other for one, other in modules)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(first(tokens).logits, second(tokens).logits)


def test_what_one_learns_the_other_does_not_see(tiny_model):
    from peft import LoraConfig, get_peft_model

    base = ResidentBase()
    plain, tokens = base.load(tiny_model, "float32"), torch.tensor([[1, 2, 3]])
    before = plain(tokens).logits.clone()
    tuned = get_peft_model(base.load(tiny_model, "float32"), LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.add_(1.0)
    assert not torch.equal(tuned(tokens).logits, before)
    assert torch.equal(plain(tokens).logits, before)
    assert not any("lora" in name for name, _ in base.load(tiny_model, "float32").named_parameters())


def test_another_arithmetic_is_another_base(tiny_model):
    base = ResidentBase()
    assert base.load(tiny_model, "bfloat16").dtype == torch.bfloat16
    assert base.load(tiny_model, "float32").dtype == torch.float32
