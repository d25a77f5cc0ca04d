"""Merging: what comes out answers as base and adapter do, in the base's own dtype."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cluster.errors import StageFailed, UserError
from pipelines.models import merging
from pipelines.models.load import load_causal_lm
from pipelines.models.merging import compare, load_weights, logits, merge_adapter

pytestmark = pytest.mark.slow

PROMPT = [1, 20, 30, 40, 50, 60]


@pytest.fixture(scope="module")
def tiny_bfloat16(tiny_model, tmp_path_factory):
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("bf16") / "tiny")
    load_causal_lm(tiny_model, "bfloat16").save_pretrained(folder)
    return folder


def dtypes(folder):
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rank-stabilised", "weight-decomposed"]
)
def test_merged_logits_are_those_of_base_and_adapter(tiny_model, make_adapter, tmp_path, options):
    from peft import PeftModel

    adapter = make_adapter(tiny_model, **options)
    likeness = merge_adapter(tiny_model, adapter, tmp_path, PROMPT)

    expected = logits(PeftModel.from_pretrained(load_causal_lm(tiny_model, "float32"), adapter).eval(), PROMPT)
    found = logits(load_causal_lm(tmp_path, "float32"), PROMPT)
    assert float((found - expected).abs().max()) == pytest.approx(likeness.largest_difference, abs=1e-6)
    assert likeness.holds and likeness.largest_difference < 1e-4
    # The adapter changes something, or the comparison would say nothing.
    assert float((expected - logits(load_causal_lm(tiny_model, "float32"), PROMPT)).abs().max()) > 0.01
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_the_sum_is_made_in_32_bits_and_kept_as_the_base_is(tiny_bfloat16, make_adapter, tmp_path):
    adapter = make_adapter(tiny_bfloat16)
    likeness = merge_adapter(tiny_bfloat16, adapter, tmp_path, PROMPT)

    assert dtypes(tmp_path) == {"BF16"} and likeness.tolerance == merging.TOLERANCES["bfloat16"]
    name = "model.layers.0.self_attn.q_proj"
    lora = load_file(adapter / "adapter_model.safetensors")
    down, up = (lora[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
    base = load_file(tiny_bfloat16 / "model.safetensors")[f"{name}.weight"]
    exact = (base.float() + 2 * up @ down).bfloat16()
    assert torch.equal(load_file(tmp_path / "model.safetensors")[f"{name}.weight"], exact)


def test_logits_of_narrow_weights_are_computed_wide_and_leave_them_as_they_were(tiny_bfloat16):
    narrow, wide = load_weights(tiny_bfloat16), load_causal_lm(tiny_bfloat16, "float32")
    before = {name: value.clone() for name, value in narrow.state_dict().items()}

    found = logits(narrow, PROMPT)

    assert found.dtype == torch.float32 and torch.equal(found, logits(wide, PROMPT))
    assert all(torch.equal(value, before[name]) for name, value in narrow.state_dict().items())
    assert narrow.dtype == torch.bfloat16 and not any(m._forward_pre_hooks for m in narrow.modules())


def test_large_weights_go_out_in_several_files(tiny_model, make_adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SHARD", "200KB")
    assert merge_adapter(tiny_model, make_adapter(tiny_model), tmp_path, PROMPT).holds
    assert len(list(tmp_path.glob("*.safetensors"))) > 1


def test_an_adapter_that_is_no_number_is_not_merged(tiny_model, make_adapter, tmp_path):
    adapter = make_adapter(tiny_model)
    weights = load_file(adapter / "adapter_model.safetensors")
    weights[next(iter(weights))][0, 0] = float("nan")
    save_file(weights, adapter / "adapter_model.safetensors")

    with pytest.raises(StageFailed, match="cannot be merged: NaNs detected"):
        merge_adapter(tiny_model, adapter, tmp_path, PROMPT)


def test_weights_that_answer_otherwise_than_the_adapter_are_refused(tiny_model, make_adapter, tmp_path, monkeypatch):
    # Merged nowhere: what is written is the bare base.
    monkeypatch.setattr(merging, "merge_in_float32", lambda layer: layer.set_adapter([]))
    with pytest.raises(StageFailed, match="does not answer as base and adapter do"):
        merge_adapter(tiny_model, make_adapter(tiny_model), tmp_path, PROMPT)


def test_a_quantised_base_is_refused(tiny_model, make_adapter, tmp_path):
    import json

    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match="quantised"):
        merge_adapter(base, make_adapter(tiny_model), tmp_path / "out", PROMPT)


def test_likeness_is_lost_by_a_nan_by_a_large_logit_and_by_losing_the_effect():
    expected, without = torch.tensor([[10.0, -10.0]]), torch.tensor([[9.0, -9.0]])
    assert compare(expected + 0.0009, expected, 1e-4, without).holds
    assert not compare(expected + 0.0011, expected, 1e-4, without).holds
    assert not compare(expected * float("nan"), expected, 1e-4, without).holds
    # Within the tolerance of 16 bits, and still no nearer than the base itself.
    assert not compare(without, expected, 0.2, without).holds
    assert compare(without, expected, 0.2).holds


def test_both_halves_of_an_encoder_and_decoder_are_compared(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_weights(tmp_path)
    assert type(model) is T5ForConditionalGeneration
    assert logits(model, PROMPT).shape == (len(PROMPT), 64)
