"""The loss of each validation example."""

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("process_group")]


@pytest.fixture
def module(tiny_model):
    from pipelines.models.load import load_causal_lm
    from pipelines.training.losses import SupervisedLoss

    return SupervisedLoss(load_causal_lm(tiny_model, "float32"))


def side_of(job):
    from pipelines.training.bins import BinFile
    from pipelines.workspace import Workspace

    return BinFile(Workspace().fetch(job.bins) / "validation.arrow")


def test_each_example_has_the_loss_that_it_has_alone_whatever_it_is_packed_and_batched_with(make_job, module):
    from pipelines.training.losses import Batch
    from pipelines.training.objectives import Supervised
    from pipelines.training.validation import Validation

    packed = Validation(side_of(make_job("packed")), {}, Supervised("cpu"), seed=3)
    found = dict(zip(packed.ids, packed.measure(module, 3, 0, 1, "cpu")[:, 0], strict=True))
    alone = side_of(make_job("alone", {"packing": False}))

    assert len(found) == len(alone) == 16
    module.eval()
    with torch.no_grad():
        for number in range(len(alone)):
            row = alone.read(number)
            batch = Batch.of([row])
            loss = float(module(batch.tokens, batch.positions, batch.targets, batch.ends))
            assert found[row.ids[0]] == pytest.approx(loss, rel=1e-3)


def test_the_mean_is_over_tokens_and_many_chunks_of_logits_give_the_same(make_job, module, monkeypatch):
    from pipelines.training import losses
    from pipelines.training.objectives import Supervised
    from pipelines.training.validation import Validation

    validation = Validation(side_of(make_job("chunks")), {}, Supervised("cpu"), seed=3)
    whole = validation.measure(module, 2, 0, 1, "cpu")[:, 0]
    monkeypatch.setattr(losses, "CHUNK", 3)
    assert np.allclose(validation.measure(module, 2, 0, 1, "cpu")[:, 0], whole, rtol=1e-4)
    assert validation.mean(whole) == pytest.approx(whole.sum() / validation.weights.sum())
    assert module.training


def test_examples_that_share_a_group_are_counted_as_one_and_a_trial_measures_some_bins(make_job):
    from pipelines.training.objectives import Supervised
    from pipelines.training.validation import Validation

    side = side_of(make_job("groups", {"packing": False}))
    groups = {f"example-{number:04d}": f"module-{number % 4}" for number in range(8)}
    assert len(set(Validation(side, groups, Supervised("cpu"), seed=3).groups.tolist())) == 4 + 8
    some = Validation(side, {}, Supervised("cpu"), seed=3, limit=5)
    assert len(some.ids) == 5
    assert some.ids == Validation(side, {}, Supervised("cpu"), seed=3, limit=5).ids
