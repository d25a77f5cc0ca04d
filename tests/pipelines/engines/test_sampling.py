import torch

from pipelines.engines.sampling import Sampler, next_tokens


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert next_tokens(logits, [Sampler.of(0, 1.0, None)] * 2) == [1, 0]


def test_the_frequencies_are_the_probabilities():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    sampler = Sampler.of(1.0, 1.0, seed=3)
    drawn = [next_tokens(logits, [sampler])[0] for _ in range(4000)]
    for token, probability in enumerate((0.5, 0.3, 0.2)):
        assert abs(drawn.count(token) / 4000 - probability) < 0.03


def test_top_p_keeps_the_fewest_tokens_that_hold_it():
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))
    sampler = Sampler.of(1.0, 0.75, seed=3)
    assert {next_tokens(logits, [sampler])[0] for _ in range(200)} == {1, 2}
    sampler = Sampler.of(1.0, 0.01, seed=3)
    assert {next_tokens(logits, [sampler])[0] for _ in range(50)} == {1}


def test_a_tiny_temperature_does_not_overflow():
    assert next_tokens(torch.tensor([[100.0, 3.0]]), [Sampler.of(1e-6, 1.0, 1)]) == [0]


def test_the_neighbours_do_not_change_what_a_seed_draws():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    alone = Sampler.of(1.0, 0.9, seed=5)
    expected = [next_tokens(logits[:1], [alone])[0] for _ in range(20)]
    row, others = Sampler.of(1.0, 0.9, seed=5), [Sampler.of(2.0, 1.0, seed=s) for s in (1, 2)]
    assert [next_tokens(logits, [row, *others])[0] for _ in range(20)] == expected


def test_a_row_that_is_not_a_number_has_no_token_and_spares_the_others():
    logits = torch.tensor([[float("nan"), 1.0], [0.0, 1.0], [float("inf"), 0.0]])
    assert next_tokens(logits, [Sampler.of(1, 1, 0), Sampler.of(0, 1, 0), Sampler.of(0, 1, 0)]) == [None, 1, None]
