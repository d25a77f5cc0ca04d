import pytest
import torch

from pipelines.engines.scoring import answer_losses
from pipelines.engines.shared_base import SharedBase
from pipelines.models.load import load_causal_lm


@pytest.fixture(scope="module")
def base(tiny_model, tiny_adapters):
    return SharedBase(tiny_model, tiny_adapters, "float32")


def conversations():
    generator = torch.Generator().manual_seed(1)
    for length, first in ((5, 2), (40, 30), (12, 1), (200, 20), (3, 0), (8, 8)):
        tokens = torch.randint(3, 600, (length,), generator=generator).tolist()
        yield tokens, [place >= first and place % 5 != 4 for place in range(length)]


def by_hand(model, tokens, supervised):
    with torch.inference_mode():
        chances = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    terms = [-float(chances[i - 1, tokens[i]]) for i in range(1, len(tokens)) if supervised[i]]
    return sum(terms), len(terms)


@pytest.mark.parametrize("adapter", [None, "first"])
@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_the_loss_is_that_of_each_conversation_alone(base, tiny_model, tiny_adapters, adapter, batch_tokens):
    model = load_causal_lm(tiny_model, "float32")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, tiny_adapters[adapter])
    given = list(conversations())
    done = []
    for (tokens, supervised), (loss, count) in zip(
        given, answer_losses(base, adapter, given, batch_tokens, done.append), strict=True
    ):
        expected, expected_count = by_hand(model, tokens, supervised)
        assert count == expected_count
        assert loss == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert done[-1] == len(given)
