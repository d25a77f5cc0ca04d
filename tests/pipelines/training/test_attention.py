"""Attention by examples: what the masked row gives, for less."""

import pytest
import torch

from cluster.errors import UserError
from pipelines.training import attention
from pipelines.training.attention import ENDS, SEGMENTS, Ends, attend, attend_by_examples, keeps_apart


def small(kind="Llama", **settings):
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def packed_logits(model, lengths, **options):
    tokens = torch.randint(0, 64, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[place for length in lengths for place in range(length)]])
    return model(input_ids=tokens, position_ids=positions, attention_mask=None, use_cache=False, **options).logits


@pytest.mark.parametrize("short", [0, 512])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_a_packed_row_gets_the_logits_and_gradients_of_the_masked_row(kind, short, monkeypatch):
    monkeypatch.setattr(attention, "SHORT", short)
    model, lengths, ends = small(kind), (5, 1, 17, 9), (5, 6, 23, 32)
    masked = packed_logits(model, lengths)
    masked.square().mean().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    attend_by_examples(model, packed=True)
    assert model.config._attn_implementation == SEGMENTS
    apart = packed_logits(model, lengths, **{ENDS: Ends(ends)})
    apart.square().mean().backward()

    assert torch.allclose(apart, masked, atol=1e-5)
    assert all(torch.allclose(p.grad, e, atol=1e-6) for p, e in zip(model.parameters(), expected, strict=True))


def test_a_sliding_window_is_kept_within_each_example():
    model = small("Mistral", sliding_window=4)
    masked = packed_logits(model, (3, 20, 9))
    attend_by_examples(model, packed=True)
    assert model.config._attn_implementation == SEGMENTS
    assert torch.allclose(packed_logits(model, (3, 20, 9), **{ENDS: Ends((3, 23, 32))}), masked, atol=1e-5)


def test_a_model_with_a_soft_cap_keeps_its_own_way():
    model = small("Gemma2", attn_logit_softcapping=20.0, head_dim=8, query_pre_attn_scalar=8)
    model.set_attn_implementation("eager")
    attend_by_examples(model, packed=True)
    assert model.config._attn_implementation == "eager"


def test_a_model_whose_state_runs_on_is_refused_for_packed_rows_and_taken_for_single_ones():
    import transformers

    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config).eval()
    assert not keeps_apart(model, 64)
    with pytest.raises(UserError, match="see each other") as refused:
        attend_by_examples(model, packed=True)
    assert "train.packing: false" in refused.value.remedy
    attend_by_examples(model, packed=False)


def test_what_it_does_not_know_is_an_error_and_never_a_guess():
    states = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="its ends"):
        attend(None, states, states, states, None)
    with pytest.raises(ValueError, match="soft cap"):
        attend(None, states, states, states, None, softcap=30.0, **{ENDS: Ends((4,))})


def test_the_gradients_of_short_attention_are_its_own_differences():
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, 7, 4, generator=draw, dtype=torch.float64) for heads in (4, 2, 2)]
    for each in states:
        each.requires_grad_()

    def mixed(query, key, value):
        return attention.ShortAttention.apply(query, key, value, [3, 4], 0.5)

    # In 32 bits inside, whatever comes in: the differences are large enough to be seen.
    assert torch.autograd.gradcheck(mixed, states, eps=1e-2, atol=1e-3, rtol=1e-3)
