"""What is learnt does not depend on how many workers share it, nor on what DeepSpeed shards."""

import pytest

from tests.pipelines.training.conftest import conversations, preferences
from tests.pipelines.training.workers import run_workers

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("process_group")]

CURVE = {
    "max_steps": 25,
    "eval_steps": 5,
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 4,
    "early_stopping_patience": 100,
}
SHORT = CURVE | {"max_steps": 4, "eval_steps": 1}
ROWS = {"train": conversations(160), "validation": conversations(32, seed=1)}
PAIRS = {"train": preferences(96), "validation": preferences(24, seed=1)}

ALONE = {
    "supervised": (CURVE, ROWS),
    "dpo": (SHORT | {"objective": "dpo", "max_length": 256}, PAIRS),
    "dora": (SHORT | {"use_dora": True}, ROWS),
}
TOGETHER = {
    "zero1": ("supervised", {"stage": 1}),
    "zero2": ("supervised", {"stage": 2}),
    "zero3": ("supervised", {"stage": 3}),
    "dpo-zero2": ("dpo", {"stage": 2}),
    "dpo-zero3": ("dpo", {"stage": 3}),
    "dora-zero2": ("dora", {"stage": 2}),
}


@pytest.fixture
def outcomes(make_job, run, tmp_path):
    """Name -> outcome: one worker at ZeRO-0, two at the others."""
    runs = []
    for name, (like, deepspeed) in TOGETHER.items():
        settings, rows = ALONE[like]
        runs.append((make_job(name, settings | {"deepspeed": deepspeed}, rows, checkpoints=""), None))
    together = run_workers(tmp_path, runs)
    found = {name: outcome for name, (outcome, _) in zip(TOGETHER, together, strict=True)}
    return found | {name: run(make_job(name, *given, checkpoints=""))[0] for name, given in ALONE.items()}


def test_two_workers_at_every_stage_learn_what_one_learns_alone(outcomes):
    for name, (like, _) in TOGETHER.items():
        alone, together = outcomes[like], outcomes[name]
        assert together["baseline_loss"] == pytest.approx(alone["baseline_loss"], rel=1e-3), name
        assert len(together["history"]) == len(alone["history"]) > 3
        for one, two in zip(alone["history"], together["history"], strict=True):
            assert two == pytest.approx(one, rel=0.01, abs=1e-3), (name, one["step"])
        assert together["supervised_tokens"] == alone["supervised_tokens"]
    for like in ALONE:
        assert outcomes[like]["last_validation_loss"] < outcomes[like]["baseline_loss"]


def test_a_number_of_workers_that_does_not_divide_the_batch_learns_the_same(make_job, run, tmp_path):
    settings = SHORT | {"per_device_train_batch_size": 2}
    [(outcome, _)] = run_workers(tmp_path, [(make_job("three", settings, ROWS, checkpoints=""), None)], world=3)
    alone, _ = run(make_job("one", settings, ROWS, checkpoints=""))

    assert outcome["workers"] == 3
    assert outcome["supervised_tokens"] == alone["supervised_tokens"]
    for one, three in zip(alone["history"], outcome["history"], strict=True):
        assert three == pytest.approx(one, rel=0.01, abs=1e-3)
