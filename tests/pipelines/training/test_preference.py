"""DPO and ORPO: their losses, their reference, and what comes of training by them."""

import math

import numpy as np
import pytest
import torch

from pipelines.training.bins import PADDING_BIN, Bin
from pipelines.training.objectives import Preferences
from pipelines.training.preference import PreferenceLoss, dpo, orpo
from tests.pipelines.training.conftest import preferences

BETA = 0.3


@pytest.fixture(scope="module")
def model(tiny_model):
    from pipelines.models.load import load_causal_lm

    return load_causal_lm(tiny_model, "float32")


class Side:
    """Some bins in memory, read as a file of them is."""

    def __init__(self, bins):
        self._bins = bins
        self.examples = [len(row.ids) for row in bins]
        self.first_example = [sum(self.examples[:number]) for number in range(len(bins))]

    def read(self, number):
        return PADDING_BIN if number is None else self._bins[number]


def texts(count, seed=0):
    """(tokens, mask) of `count` texts of different lengths; the last four tokens are the answer."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        length = 7 + 3 * number
        found.append((torch.randint(3, 500, (length,), generator=draw).tolist(), [0] * (length - 4) + [1] * 4))
    return found


def packed(some):
    return Bin(
        [token for tokens, _ in some for token in tokens],
        [wanted for _, mask in some for wanted in mask],
        [len(tokens) for tokens, _ in some],
        [f"pair-{number}" for number in range(len(some) // 2)],
    )


def score(model, tokens, mask):
    """The answer's log-probability and its length, the plain way."""
    logs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    places = [place for place, wanted in enumerate(mask) if wanted]
    return sum(logs[place - 1, tokens[place]] for place in places), len(places)


def sums(model, objective, bins, reference=None):
    side = Side(bins)
    preferences = Preferences("cpu", references=None if reference is None else {side: reference})
    return preferences.sums(PreferenceLoss(model, objective, BETA), side, range(len(bins)))


def test_dpo_is_the_papers_loss_however_the_pairs_are_packed(model):
    four, two = texts(4), texts(2, seed=1)
    rng = np.random.default_rng(0)
    reference = (-30 + rng.normal(size=(3, 2))).astype(np.float32)
    scores = [score(model, *text)[0] for text in (*four, *two)]
    expected, margins = 0.0, []
    for number, (chosen, rejected) in enumerate(zip(scores[::2], scores[1::2], strict=True)):
        margin = BETA * ((chosen - reference[number, 0]) - (rejected - reference[number, 1]))
        expected -= math.log(1 / (1 + math.exp(-float(margin.detach()))))
        margins.append(float(margin.detach()))

    together = sums(model, "dpo", [packed(four), packed(two)], reference)
    apart = sums(model, "dpo", [packed(four[:2]), packed(four[2:]), packed(two)], reference)

    right = sum(margin > 0 for margin in margins)
    assert together.tolist() == pytest.approx([expected, sum(margins), right], rel=1e-4)
    assert apart.tolist() == pytest.approx(together.tolist(), rel=1e-4)


def test_orpo_is_the_papers_loss(model):
    four = texts(4)
    expected = 0.0
    for chosen, rejected in zip(four[::2], four[1::2], strict=True):
        means = [float((score(model, *text)[0] / score(model, *text)[1]).detach()) for text in (chosen, rejected)]
        odds = [math.exp(mean) / (1 - math.exp(mean)) for mean in means]
        expected += -means[0] - BETA * math.log(1 / (1 + odds[1] / odds[0]))

    assert float(sums(model, "orpo", [packed(four)])[0].detach()) == pytest.approx(expected, rel=1e-4)


def test_an_untouched_model_has_a_margin_of_zero_and_a_loss_of_log_two(model):
    bins = [packed(texts(4)), packed(texts(2, seed=1))]
    side = Side(bins)
    preferences, module = Preferences("cpu", references={}), PreferenceLoss(model, "dpo", BETA)
    with torch.no_grad():
        preferences.references[side] = preferences.scores(module, side, [0, None, 1])

    loss, margin, right = preferences.sums(module, side, [1, 0]).tolist()
    assert loss == pytest.approx(3 * math.log(2), rel=1e-5)
    assert margin == pytest.approx(0, abs=1e-4)
    assert 0 <= right <= 3


def test_certain_answers_have_finite_losses_and_gradients():
    answers = torch.tensor([[0.0, -50.0], [-1e-9, -1e-9]], requires_grad=True)
    losses, _ = orpo(answers, torch.full((2, 2), 4.0), BETA)
    losses.sum().backward()

    assert losses.isfinite().all() and answers.grad.isfinite().all()


def test_a_preferred_answer_costs_less_the_more_it_is_preferred():
    near, _ = dpo(torch.tensor([[-9.0, -11.0]]), torch.tensor([[-10.0, -10.0]]), BETA)
    far, _ = dpo(torch.tensor([[-5.0, -15.0]]), torch.tensor([[-10.0, -10.0]]), BETA)
    assert float(far) < float(near) < math.log(2)


@pytest.mark.parametrize("objective", ["dpo", "orpo"])
def test_rows_that_fill_a_step_weigh_nothing_and_move_nothing(model, objective):
    model.zero_grad()
    side = Side([])
    reference = np.zeros((0, 2), dtype=np.float32)
    found = Preferences("cpu", references={side: reference} if objective == "dpo" else None).sums(
        PreferenceLoss(model, objective, BETA), side, [None, None]
    )
    found[0].backward()

    assert found.tolist() == [0.0, 0.0, 0.0]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("labels", [1, 2])
def test_workers_with_fewer_answers_run_the_output_layer_as_often(model, monkeypatch, labels):
    from pipelines.training import losses

    bins = [packed(texts(2 * labels))]
    alone = sums(model, "orpo", bins).tolist()
    monkeypatch.setattr(losses, "CHUNK", 3)
    monkeypatch.setattr(losses, "highest", lambda count, device: 7)
    calls = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    try:
        found = Preferences("cpu").sums(PreferenceLoss(model, "orpo", BETA, same_calls=True), Side(bins), [0])
        found[0].backward()
    finally:
        hook.remove()

    assert len(calls) == 14
    assert found.tolist() == pytest.approx(alone, rel=1e-5, abs=1e-5)


PAIRS = {"train": preferences(200), "validation": preferences(40, seed=1)}
QUICK = {
    "max_length": 256,
    "num_train_epochs": 3,
    "eval_steps": 4,
    "learning_rate": 5e-3,
    "gradient_checkpointing": False,
}


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
class TestTraining:
    """The loop in this process, with a tiny model and DeepSpeed."""

    @pytest.mark.parametrize(("objective", "method"), [("dpo", "lora"), ("dpo", "full"), ("orpo", "lora")])
    def test_200_pairs_raise_the_margin_on_held_out_pairs(self, make_job, run, objective, method):
        rate = 5e-3 if method == "lora" else 1e-3
        job = make_job(f"{objective}-{method}", QUICK | {"objective": objective, "method": method,
                       "learning_rate": rate}, PAIRS)  # fmt: skip
        outcome, heard = run(job)

        before, after = outcome["baseline_figures"], outcome["history"][-1]
        assert after["reward_margin"] > before["reward_margin"] + 0.05
        assert after["reward_accuracy"] > 0.8
        assert outcome["last_validation_loss"] < outcome["baseline_loss"]
        assert heard.of("step", "reward_margin")[-1] > heard.of("step", "reward_margin")[0]
        if objective == "dpo":
            assert outcome["baseline_loss"] == pytest.approx(math.log(2), rel=1e-4)
            assert before["reward_margin"] == pytest.approx(0, abs=1e-4)

    def test_eight_rows_at_once_equal_eight_passes(self, make_job, run):
        settings = QUICK | {"objective": "dpo", "num_train_epochs": 1, "eval_steps": 1}
        settings |= {"max_steps": 3}
        wide, _ = run(make_job("wide", settings, PAIRS))
        deep, _ = run(make_job("deep", settings | {"per_device_train_batch_size": 1}, PAIRS))

        for one, other in zip(wide["history"], deep["history"], strict=True):
            assert one == pytest.approx(other, rel=2e-3, abs=1e-4)

    def test_a_resumed_run_keeps_the_reference_that_it_began_with(self, make_job, run):
        settings = QUICK | {
            "objective": "dpo",
            "max_steps": 4,
            "eval_steps": 2,
            "method": "full",
            "learning_rate": 1e-3,
        }
        whole, _ = run(make_job("whole", settings, PAIRS))
        run(make_job("halves", settings, PAIRS), stop_at=3)
        resumed, heard = run(make_job("halves", settings, PAIRS))

        assert heard.of("resumed") == [3]
        assert resumed["history"][-1] == pytest.approx(whole["history"][-1], rel=1e-4)

    def test_the_reference_is_computed_once_for_the_same_bins(self, make_job, run, monkeypatch):
        asked = []
        scores = Preferences.scores
        monkeypatch.setattr(Preferences, "scores", lambda self, *given: asked.append(1) or scores(self, *given))
        settings = QUICK | {"objective": "dpo", "max_steps": 1, "eval_steps": 1}
        first, _ = run(make_job("again", settings, PAIRS))
        count = len(asked)
        second, _ = run(make_job("again", settings | {"beta": 0.2}, PAIRS, checkpoints=""))

        assert len(asked) == count > 0
        assert second["baseline_loss"] == pytest.approx(first["baseline_loss"], rel=1e-5)
