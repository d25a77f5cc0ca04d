"""Adapters of every kind beside their base: what PEFT computes with each alone."""

import pytest
import torch
from torch import nn

from pipelines.engines.adapters import low_ranks
from pipelines.engines.lora import LowRank, Rows, attach
from pipelines.engines.protocol import GenerationRequest
from pipelines.engines.transformers import TransformersEngine
from pipelines.models.load import load_causal_lm, load_tokenizer

pytestmark = pytest.mark.slow

KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "both": {"use_dora": True, "use_rslora": True},
}


def shaken(model, seed, std):
    """The adapters of a PEFT model as if trained: nothing is zero, no magnitude is what it began with."""
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=std)
        if "lora_magnitude_vector" in key:
            parameter.data *= 1 + 0.5 * torch.rand_like(parameter)
    return model


@pytest.fixture(scope="module")
def kinds(tiny_model, tmp_path_factory):
    """Name -> folder of an adapter of that kind."""
    from peft import LoraConfig, get_peft_model

    folders = {}
    for seed, (name, options) in enumerate(KINDS.items()):
        config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", **options)
        model = shaken(get_peft_model(load_causal_lm(tiny_model, "float32"), config), seed, 0.3)
        folders[name] = tmp_path_factory.mktemp("kinds") / name
        model.save_pretrained(folders[name])
    return folders


def test_a_mixed_batch_says_token_for_token_what_peft_says_with_each_adapter_alone(tiny_model, kinds):
    from peft import PeftModel

    tokenizer = load_tokenizer(tiny_model)
    prompts = [tuple(tokenizer(text)["input_ids"]) for text in ("Return the list of arguments.", "def")]
    engine = TransformersEngine(tiny_model, kinds, "float32", max_batch_size=5)
    try:
        names = [None, *kinds]
        answers = engine.generate([GenerationRequest(prompt, name, 16) for prompt in prompts for name in names])
    finally:
        engine.close()
    expected = []
    for name in names:
        model = load_causal_lm(tiny_model, "float32")
        model = PeftModel.from_pretrained(model, kinds[name]) if name else model
        for prompt in prompts:
            tokens = model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=16,
                do_sample=False,
            )[0, len(prompt) :]
            expected.append((name, prompt, tokenizer.decode(tokens, skip_special_tokens=True)))

    said = {(name, prompt): answers.pop(0).text for prompt in prompts for name in names}
    assert said == {(name, prompt): text for name, prompt, text in expected}
    assert len({said[name, prompts[0]] for name in names}) == len(names), "all must answer differently to prove it"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [("dora",) * 3, (None, "dora", "plain"), (None,) * 3, ("plain", "plain", None)])
def test_a_layer_gives_each_row_what_peft_gives_it(bias, rows):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(6, 5, bias=bias))
    inputs = torch.randn(3, 2, 6)
    model = get_peft_model(bare, LoraConfig(r=2, target_modules=["0"], use_dora=True), adapter_name="dora")
    model.add_adapter("plain", LoraConfig(r=3, target_modules=["0"], use_rslora=True))
    shaken(model, 1, 0.5).eval()
    expected = []
    with torch.no_grad():
        for number, name in enumerate(rows):
            if name:
                model.set_adapter(name)
                expected.append(model(inputs[number]))
            else:
                with model.disable_adapter():
                    expected.append(model(inputs[number]))
    together, served = Rows(), nn.Sequential(bare[0].base_layer)
    for name in ("dora", "plain"):
        attach(served, together, name, low_ranks(model.base_model.model, name))
    together.assign(rows, torch.device("cpu"))
    with torch.no_grad():
        assert torch.allclose(served(inputs), torch.stack(expected), atol=1e-5)


def three_adapters(width=16):
    torch.manual_seed(0)
    rows, model = Rows(), nn.Sequential(nn.Linear(width, width))
    for name, rank in (("a", 2), ("b", 3), ("c", 2)):
        attach(model, rows, name, {"0": LowRank(torch.randn(rank, width), torch.randn(rank, width))})
    return rows, model


def places(*tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_a_mixture_of_neighbours_is_no_copy_whatever_was_mixed_before():
    rows, model = three_adapters()
    layer, inputs = model[0], torch.randn(3, 2, 16)
    for mixed in (("a", "b", "c"), ("a", "b", "a"), ("c", "a", None), ("b", "c", "b"), ("a", "b", "c")):
        rows.assign(mixed, torch.device("cpu"))
        answer = model(inputs)
        for number, name in enumerate(mixed):
            rows.assign((name,), torch.device("cpu"))
            assert torch.allclose(answer[number], model(inputs[number : number + 1])[0], atol=1e-5)
        own = places(*(update.down for update in layer._own.values()))
        assert len(own) == 1 and (places(layer._mixed[1]) == own) == ("c" not in mixed or "b" in mixed)


def test_without_room_for_one_more_adapter_those_that_are_there_stay(monkeypatch):
    rows, model = three_adapters()
    rows.assign(("a", "c"), torch.device("cpu"))
    inputs = torch.randn(2, 2, 16)
    before = model(inputs)

    def full(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="out of memory"):
        patched.setattr(torch, "cat", full)
        attach(model, rows, "d", {"0": LowRank(torch.randn(2, 16), torch.randn(2, 16))})
    assert model[0].adapters == ("a", "b", "c") and torch.equal(model(inputs), before)
