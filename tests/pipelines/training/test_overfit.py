"""Overfitting: the paired difference, its interval and what counts."""

import json

import numpy as np
import pytest

from pipelines.gates import Verdict
from pipelines.training import verdicts
from pipelines.training.overfit import by_loss, group_numbers, overfit_at, paired_difference
from tests.pipelines.training.conftest import conversations


def difference(change, groups=None, tokens=None, **options):
    change = np.asarray(change, dtype=float)
    tokens = np.ones(len(change)) if tokens is None else np.asarray(tokens, dtype=float)
    numbers = group_numbers(range(len(change)) if groups is None else groups)
    return paired_difference(np.zeros(len(change)), change, tokens, numbers, **options)


def test_the_difference_is_weighed_by_tokens_as_the_validation_loss_is():
    assert difference([2.0, 0.0], tokens=[1, 9]).estimate == pytest.approx(0.2)


def test_the_interval_holds_the_truth_about_as_often_as_it_says_with_groups_too():
    draw = np.random.default_rng(3)
    held = alone = 0
    for _ in range(400):
        shared = np.repeat(draw.normal(0.1, 1.0, 25), 8)
        change, groups = shared + draw.normal(0, 0.3, 200), np.repeat(np.arange(25), 8)
        inside = difference(change, groups)
        held += inside.low <= 0.1 <= inside.high
        single = difference(change)
        alone += single.low <= 0.1 <= single.high
    assert 0.92 <= held / 400 <= 0.98
    # Taken for independent, the same examples would promise what they cannot keep.
    assert alone / 400 < 0.7


def test_a_single_group_has_no_interval_and_many_comparisons_widen_it():
    assert difference([1.0, 1.1], groups=["a", "a"]).as_json()["low"] is None
    one, many = difference([1.0, 1.2, 0.8, 1.1]), difference([1.0, 1.2, 0.8, 1.1], comparisons=10)
    assert many.low < one.low < one.estimate == many.estimate < one.high < many.high


def history(*pairs):
    return [{"step": step, "train_loss": train} for step, train in enumerate(pairs, start=1)]


def test_overfitting_takes_a_rise_beyond_its_interval_and_a_falling_training_loss():
    rise, noise = difference([0.5, 0.6, 0.4, 0.5]), difference([0.5, -0.6, 0.9, -0.5])

    seen = overfit_at(history(2.0, 1.5, 1.0), 1, rise, (2.2, 2.7))
    assert (seen["since_step"], seen["seen_at_step"], seen["train_loss_then"], seen["train_loss"]) == (1, 3, 2.0, 1.0)
    assert seen["low"] > 0
    assert overfit_at(history(2.0, 1.5, 1.0), 1, noise, (2.2, 2.3)) is None
    # Both rise: that is no overfitting, it is diverging.
    assert overfit_at(history(2.0, 2.5, 3.0), 1, rise, (2.2, 2.7)) is None


def test_since_the_start_training_is_measured_from_its_first_losses():
    rise = difference([0.5, 0.6, 0.4, 0.5])
    assert overfit_at(history(2.0, 1.0), 0, rise, (2.0, 2.5))["train_loss_then"] == 2.0
    assert overfit_at(history(2.0), 0, rise, (2.0, 2.5)) is None


def test_the_worst_and_the_best_examples_are_named_with_what_the_base_had():
    tokens, kept, base = np.array([1.0, 2.0, 4.0, 1.0]), np.array([3.0, 2.0, 2.0, 0.1]), np.array([3.0, 4.0, 8.0, 1.0])
    shown = by_loss(["a", "b", "c", "d"], tokens, kept, base, 2)
    assert [entry["id"] for entry in shown["worst"]] == ["a", "b"]
    assert [entry["id"] for entry in shown["best"]] == ["d", "c"]
    assert shown["best"][1] == {"id": "c", "loss": 0.5, "base_loss": 2.0, "tokens": 4}


@pytest.mark.cluster
@pytest.mark.usefixtures("process_group")
def test_early_stopping_ends_an_overfitting_run_within_patience_keeps_the_best_and_the_gate_says_so(make_job, run):
    # Answers that follow from nothing: they can only be learnt by heart.
    sides = {"train": shuffled_answers(64, 0), "validation": shuffled_answers(200, 1)}
    settings = {
        "num_train_epochs": 30,
        "method": "full",
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "packing": False,
        "per_device_train_batch_size": 8,
        "eval_steps": 16,
        "early_stopping_patience": 3,
    }
    job = make_job("overfitting", settings, sides)
    outcome, heard = run(job)

    losses = dict(zip(heard.of("validation"), heard.of("validation", "loss"), strict=True))
    best = min(losses, key=losses.get)
    assert job.plan.steps == 240
    assert outcome["step"] == best + 3 * 16 < 240
    assert "no improvement in 3 validations" in outcome["stopped_because"]
    assert outcome["kept_step"] == best
    seen = outcome["overfit"]
    assert (seen["since_step"], seen["seen_at_step"]) == (best, outcome["step"])
    assert 0 < seen["low"] < seen["difference"] < seen["high"]
    assert seen["difference"] == pytest.approx(losses[outcome["step"]] - losses[best], rel=1e-3)
    assert seen["train_loss"] < seen["train_loss_then"]
    assert heard.of("overfit")
    gate = verdicts.overfit_gate(outcome, verdicts.kept_loss(outcome))
    assert gate.verdict is Verdict.OPEN
    assert f"Kept step {best} of {outcome['step']}" in gate.evidence
    assert f"Overfitting since step {best}" in gate.evidence
    assert "the best weights were kept" in gate.evidence
    # The weights that were kept, example by example.
    shown = outcome["examples_by_loss"]
    assert shown["worst"][0]["loss"] >= shown["worst"][-1]["loss"] >= shown["best"][-1]["loss"]
    assert {entry["id"] for entry in shown["worst"] + shown["best"]} <= {example for example, _ in sides["validation"]}
    assert outcome["against_base"]["high"] < 0


def shuffled_answers(count, seed):
    """Conversations whose answers belong to other prompts."""
    rows, other = conversations(count, seed), conversations(count, seed + 100)
    told = []
    for (example, one), (_, two) in zip(rows, other, strict=True):
        told.append((example, json.dumps([json.loads(one)[0], json.loads(two)[1]])))
    return told


def test_weights_that_are_overfit_close_the_gate_and_it_says_so():
    entries = history(2.0, 1.0)
    rise = difference([0.5, 0.6, 0.4, 0.5])
    outcome = {
        "history": entries,
        "stopping": {"best_loss": 2.5},
        "baseline_loss": 3.5,
        "last_validation_loss": 3.0,
        "last_train_loss": 1.0,
        "kept_step": 2,
        "step": 2,
        "overfit": overfit_at(entries, 1, rise, (2.5, 3.0)),
    }
    gate = verdicts.overfit_gate(outcome, 3.0)
    assert gate.verdict is Verdict.CLOSED
    assert "Overfitting since step 1: by step 2 the validation loss rose by +0.500 [+0.370, +0.630]" in gate.evidence
    assert "what was kept is overfit" in gate.evidence
