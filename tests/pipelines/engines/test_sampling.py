import math
from dataclasses import replace

import pytest
import torch

from pipelines.engines.sampling import Sampler, next_tokens


def drawn_from(logits, samplers):
    tokens = next_tokens(logits, samplers)
    assert all(token is None or (token.logprob is None and token.likeliest == ()) for token in tokens)
    return [token.id if token else None for token in tokens]


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert drawn_from(logits, [Sampler.of(0, 1.0, None)] * 2) == [1, 0]


def test_the_frequencies_are_the_probabilities():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    sampler = Sampler.of(1.0, 1.0, seed=3)
    drawn = [drawn_from(logits, [sampler])[0] for _ in range(4000)]
    for token, probability in enumerate((0.5, 0.3, 0.2)):
        assert abs(drawn.count(token) / 4000 - probability) < 0.03


def test_top_p_keeps_the_fewest_tokens_that_hold_it():
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    sampler = Sampler.of(1.0, 0.75, seed=3)
    assert {drawn_from(logits, [sampler])[0] for _ in range(200)} == {1, 2}
    sampler = Sampler.of(1.0, 0.01, seed=3)
    assert {drawn_from(logits, [sampler])[0] for _ in range(50)} == {1}


def test_a_tiny_temperature_does_not_overflow():
    assert drawn_from(torch.tensor([[100.0, 3.0]]), [Sampler.of(1e-6, 1.0, 1)]) == [0]


def test_the_neighbours_do_not_change_what_a_seed_draws():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    alone = Sampler.of(1.0, 0.9, seed=5)
    expected = [drawn_from(logits[:1], [alone])[0] for _ in range(20)]
    row, others = Sampler.of(1.0, 0.9, seed=5), [Sampler.of(2.0, 1.0, seed=s) for s in (1, 2)]
    assert [drawn_from(logits, [row, *others])[0] for _ in range(20)] == expected


def test_a_row_that_is_not_a_number_has_no_token_and_spares_the_others():
    logits = torch.tensor([[float("nan"), 1.0], [0.0, 1.0], [float("inf"), 0.0]])
    assert drawn_from(logits, [Sampler.of(1, 1, 0), Sampler.of(0, 1, 0), Sampler.of(0, 1, 0)]) == [None, 1, None]


def test_probabilities_are_told_to_those_who_ask_before_temperature_and_top_p():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]] * 3)) + 7
    told = [replace(Sampler.of(0, 1, None), logprobs=2), replace(Sampler.of(0.2, 0.01, 3), logprobs=0)]
    first, second, third = next_tokens(logits, [*told, Sampler.of(0, 1, None)])
    assert [token.id for token in (first, second, third)] == [0, 0, 0]
    assert math.exp(first.logprob) == pytest.approx(0.5) and math.exp(second.logprob) == pytest.approx(0.5)
    assert [number for number, _ in first.likeliest] == [0, 1]
    assert [math.exp(logprob) for _, logprob in first.likeliest] == pytest.approx([0.5, 0.3])
    assert second.likeliest == third.likeliest == () and third.logprob is None


def test_a_row_whose_grammar_leaves_nothing_has_no_token_and_spares_the_others():
    class Nothing:
        def allowed(self, logits):
            return torch.full_like(logits, -torch.inf)

    logits = torch.tensor([[1.0, 0.0]] * 3)
    for sampler in (Sampler.of(0, 1, None), Sampler.of(1, 1, 3)):
        assert drawn_from(logits, [sampler, replace(sampler, grammar=Nothing()), sampler])[1] is None
        assert drawn_from(logits[:2], [Sampler.of(0, 1, None), replace(sampler, grammar=Nothing())])[0] == 0
