"""The loss: packed examples do not see each other, only supervised tokens count."""

import pytest
import torch

from pipelines.training.bins import PADDING_BIN, Bin
from pipelines.training.losses import Batch, SupervisedLoss


@pytest.fixture(scope="module")
def model(tiny_model):
    from pipelines.models.load import load_causal_lm

    return load_causal_lm(tiny_model, "float32")


def examples(count=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    bins = []
    for number in range(count):
        length = 6 + 3 * number
        tokens = torch.randint(3, 500, (length,), generator=draw).tolist()
        bins.append(Bin(tokens, [0] * (length - 4) + [1] * 4, [length], [f"e{number}"]))
    return bins


def packed(bins):
    return Bin(
        [t for b in bins for t in b.tokens],
        [s for b in bins for s in b.supervised],
        [n for b in bins for n in b.lengths],
        [i for b in bins for i in b.ids],
    )


def loss_of(model, bins):
    batch = Batch.of(bins)
    return SupervisedLoss(model)(batch.tokens, batch.positions, batch.targets, batch.ends)


def test_a_packed_row_has_the_loss_of_its_examples_alone(model):
    alone = sum(float(loss_of(model, [one]).detach()) for one in examples())

    assert float(loss_of(model, [packed(examples())]).detach()) == pytest.approx(alone, rel=1e-4)


def test_rows_of_a_batch_have_the_loss_that_they_have_alone(model):
    rows = [packed(examples(2)), packed(examples(5, seed=1)), examples(1, seed=2)[0]]
    alone = sum(float(loss_of(model, [one]).detach()) for one in rows)

    assert float(loss_of(model, rows).detach()) == pytest.approx(alone, rel=1e-4)


def test_the_gradients_of_a_packed_row_are_those_of_its_examples(model):
    def gradient(batches):
        model.zero_grad()
        for bins in batches:
            loss_of(model, bins).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    apart, together = gradient([[one] for one in examples()]), gradient([[packed(examples())]])
    assert torch.allclose(apart, together, atol=1e-3 * float(apart.abs().max()))


def test_another_neighbour_in_the_row_changes_nothing(model):
    first, second, third = examples(3)
    other = Bin([t + 1 for t in first.tokens], [0] * len(first.tokens), first.lengths, ["other"])
    silent = Bin(first.tokens, [0] * len(first.tokens), first.lengths, ["first"])

    one = float(loss_of(model, [packed([silent, second, third])]).detach())
    assert float(loss_of(model, [packed([other, second, third])]).detach()) == pytest.approx(one, rel=1e-5)


def test_the_loss_is_that_of_the_whole_logits_at_supervised_places(model):
    one = examples(1)[0]
    tokens = torch.tensor([one.tokens])
    logits = model(tokens).logits[0, :-1]
    wanted = torch.tensor(one.supervised[1:], dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(logits[wanted], tokens[0, 1:][wanted], reduction="sum")

    assert float(loss_of(model, [one]).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_many_supervised_places_go_through_in_parts_with_the_same_loss_and_gradient(model, monkeypatch):
    from pipelines.training import losses

    def both():
        model.zero_grad()
        loss = loss_of(model, [packed(examples())])
        loss.backward()
        return float(loss.detach()), model.get_input_embeddings().weight.grad.clone()

    whole, gradient = both()
    monkeypatch.setattr(losses, "CHUNK", 3)
    parts, gradient_in_parts = both()
    assert parts == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(gradient, gradient_in_parts, atol=1e-5)


def calls_of_the_head(model, bins, most, monkeypatch):
    """How often the output layer runs, forward and backward and without gradients, and the loss."""
    from pipelines.training import losses

    monkeypatch.setattr(losses, "CHUNK", 3)
    monkeypatch.setattr(losses, "highest", lambda count, device: max(count, most))
    calls = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    batch = Batch.of(bins)
    module = SupervisedLoss(model, same_calls=True)
    try:
        loss = module(batch.tokens, batch.positions, batch.targets, batch.ends)
        loss.backward()
        trained = len(calls)
        with torch.no_grad():
            module(batch.tokens, batch.positions, batch.targets, batch.ends)
    finally:
        hook.remove()
    return trained, len(calls) - trained, float(loss.detach())


def test_workers_with_fewer_labels_run_the_output_layer_as_often_as_the_others(model, monkeypatch):
    alone = float(loss_of(model, [examples(1)[0]]).detach())
    # 20, 4 and no labels, three at a time: seven passes for each, and seven more when gradients are recomputed.
    many = calls_of_the_head(model, [packed(examples(5))], 7, monkeypatch)
    few = calls_of_the_head(model, [examples(1)[0]], 7, monkeypatch)
    none = calls_of_the_head(model, [PADDING_BIN], 7, monkeypatch)

    assert many[:2] == few[:2] == none[:2] == (14, 7)
    assert few[2] == pytest.approx(alone, rel=1e-5)
    assert none[2] == 0.0


def test_a_row_that_fills_a_step_weighs_nothing_and_moves_nothing(model):
    model.zero_grad()
    loss = loss_of(model, [PADDING_BIN])
    loss.backward()

    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_model_that_alters_its_logits_takes_the_long_way_to_the_same_loss(model):
    straight = float(loss_of(model, examples(2)).detach())
    model.config.logit_scale = 0.5
    try:
        assert float(loss_of(model, examples(2)).detach()) == pytest.approx(straight, rel=1e-5)
    finally:
        del model.config.logit_scale
