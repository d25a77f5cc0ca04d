"""The train stage: what it reads, how it judges, and the whole of it on a tiny model."""

import json
import random
from dataclasses import replace

import pytest

from cluster.errors import GateClosed, UserError
from pipelines import audit, split, train
from pipelines.gates import Verdict
from pipelines.progress import Progress
from pipelines.recipe_file import load_recipe
from pipelines.training import verdicts
from pipelines.training.bins import SideFigures


def outcome(losses, baseline=3.0, kept=None, learnt=2.0):
    history = [
        {"step": step, "train_loss": learnt, "validation_loss": loss} for step, loss in enumerate(losses, start=1)
    ]
    best = min(losses)
    return {
        "history": history,
        "stopping": {"best_loss": best},
        "baseline_loss": baseline,
        "last_validation_loss": losses[-1],
        "last_train_loss": learnt,
        "kept_step": kept or losses.index(best) + 1,
        "step": len(losses),
    }


def judged(result):
    kept = verdicts.kept_loss(result)
    return verdicts.overfit_gate(result, kept).verdict, verdicts.converged_gate(result, kept).verdict


def test_a_run_that_improves_passes():
    assert judged(outcome([2.8, 2.6, 2.5])) == (Verdict.OPEN, Verdict.OPEN)


def test_a_turn_for_the_worse_passes_when_the_best_was_kept():
    assert judged(outcome([2.8, 2.5, 2.9])) == (Verdict.OPEN, Verdict.OPEN)


def test_keeping_a_state_that_is_worse_than_the_best_is_overfitting():
    assert judged(outcome([2.8, 2.5, 2.9], kept=3)) == (Verdict.CLOSED, Verdict.OPEN)


def test_learning_by_heart_is_overfitting():
    assert judged(outcome([3.1, 3.5], learnt=0.5)) == (Verdict.CLOSED, Verdict.CLOSED)


def test_learning_nothing_is_no_overfitting_but_no_convergence_either():
    assert judged(outcome([3.0, 3.1], learnt=3.2)) == (Verdict.OPEN, Verdict.CLOSED)


def test_no_number_passes_nothing():
    assert judged(outcome([float("nan")])) == (Verdict.CLOSED, Verdict.CLOSED)


def figures(**values):
    return SideFigures(**({"examples": 100, "kept": 100, "tokens": 1000, "supervised_tokens": 200} | values))


def test_supervision_closes_when_an_example_teaches_nothing_or_no_end():
    assert verdicts.supervision_gate(figures()).verdict is Verdict.OPEN
    assert verdicts.supervision_gate(figures(untaught=1)).verdict is Verdict.CLOSED
    assert verdicts.supervision_gate(figures(unended=1)).verdict is Verdict.CLOSED
    assert verdicts.supervision_gate(figures(unended=1, truncated=1)).verdict is Verdict.OPEN
    assert verdicts.supervision_gate(figures(kept=0)).verdict is Verdict.CLOSED


def test_truncation_closes_beyond_five_percent_and_says_what_is_lost():
    assert verdicts.truncation_gate(figures(overlong=5, dropped=5)).verdict is Verdict.OPEN
    gate = verdicts.truncation_gate(figures(overlong=6, dropped=4, truncated=2, tokens_lost=777))
    assert gate.verdict is Verdict.CLOSED
    assert "4 examples dropped and 2 cut of 100" in gate.evidence
    assert "777 tokens lost" in gate.evidence


def test_what_was_lost_is_a_finding_with_its_examples():
    lost = replace(figures(dropped=2), samples={"dropped": ["a", "b"]})
    [finding] = verdicts.input_findings(lost)
    assert (finding.code, finding.count) == ("train.truncation.dropped", 2)
    assert finding.samples == ({"id": "a"}, {"id": "b"})


def test_a_lora_target_that_the_model_lacks_is_refused_with_the_modules_it_has(tiny_model):
    from pipelines.models.load import BaseFiles
    from pipelines.recipe import Cluster, Train
    from pipelines.training.check import check_recipe

    base = BaseFiles("tiny", tiny_model, "f", "local", "")
    check_recipe(Train(target_modules=("q_proj", "mlp.up_proj")), Cluster(), base)
    with pytest.raises(UserError, match="has no q_project; did you mean q_proj") as refused:
        check_recipe(Train(target_modules=("q_project",)), Cluster(), base)
    assert "down_proj, embed_tokens, gate_proj" in refused.value.remedy
    with pytest.raises(UserError, match="1024 positions"):
        check_recipe(Train(max_length=2048), Cluster(), base)
    with pytest.raises(UserError, match="not divisible"):
        check_recipe(Train(global_batch_size=4), Cluster(num_workers=3), base)


WORDS = [line for line in json.__doc__.split() if line.isalpha()]


@pytest.fixture
def small_recipe(ray_cluster, tiny_model, recipe_file, tmp_path, monkeypatch):
    """A recipe over the tiny model whose audit and split have passed, in the cluster's workspace."""
    draw = random.Random(5)
    with (tmp_path / "examples.jsonl").open("w") as stream:
        for number in range(300):
            words = draw.choices(WORDS, k=14)
            answer = " ".join(words[:3])
            stream.write(json.dumps({"prompt": f"{number} " + " ".join(words), "completion": answer}) + "\n")

    def make(**sections):
        path = recipe_file(
            name=sections.pop("name", "small"),
            dataset={
                "source": "examples.jsonl",
                "provenance": {"source": "made", "collector": "a test", "annotator": "a person"},
            },
            audit={"min_examples": 100, "near_duplicate_threshold": 1.0, "max_duplicate_share": 1.0},
            models=[{"base": str(tiny_model)}],
            train={
                "learning_rate": 1e-2,
                "lora_r": 4,
                "max_steps": 6,
                "eval_steps": 2,
                "global_batch_size": 4,
                "max_length": 256,
                "dtype": "float32",
            }
            | sections.pop("train", {}),
            **sections,
        )
        recipe = load_recipe(path)
        for stage in (audit.STAGE, split.STAGE):
            report = stage.perform(recipe, ray_cluster)
            assert report.verdict is not Verdict.CLOSED, report.gates
        return recipe

    return make


@pytest.mark.cluster
def test_training_before_the_split_names_the_missing_evidence(recipe_file, workspace, tmp_path):
    (tmp_path / "examples.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(GateClosed, match="there is no audit report"):
        train.STAGE.perform(load_recipe(recipe_file()), workspace)


@pytest.mark.cluster
def test_the_stage_trains_judges_tracks_and_stands_when_nothing_changed(small_recipe, ray_cluster, capsys):
    from pipelines.fingerprint import folder_fingerprint
    from pipelines.tracking import runs

    recipe = small_recipe(name="whole")
    report = train.STAGE.perform(recipe, ray_cluster, Progress())

    told = capsys.readouterr().err
    assert "\u27e6" in told and "<|im_end|>\u27e7" in told
    assert "before training: validation" in told
    assert "tokens/s" in told and "left" in told
    assert report.verdict is Verdict.OPEN, report.gates
    found = report.figures
    assert found["steps"] == 6
    assert found["best_validation_loss"] < found["baseline_validation_loss"]
    assert found["example"]["supervised_text"].endswith("<|im_end|>")
    assert folder_fingerprint(ray_cluster.fetch(report.produced["model"])) == report.produced["model_fingerprint"]
    history = runs.metric_history(ray_cluster.settings, report.produced["run_id"])
    assert [step for step, _, _ in history["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _, _ in history["validation/loss"]] == [0, 2, 4, 6]
    assert history["validation/loss"][-1][1] == found["last_validation_loss"]

    again = train.STAGE.perform(recipe, ray_cluster)
    assert again.created_at == report.created_at


@pytest.mark.cluster
def test_the_winner_of_a_sweep_is_what_trains_and_is_named(small_recipe, ray_cluster):
    from pipelines import sweep
    from pipelines.tracking import runs

    recipe = small_recipe(
        name="swept",
        sweep={
            "num_samples": 3,
            "max_steps": 4,
            "grace_steps": 2,
            "space": {"learning_rate": {"choice": [1e-2, 1e30]}, "lora_r": {"choice": [2, 4]}},
        },
    )
    with pytest.raises(GateClosed, match="no sweep report"):
        train.STAGE.perform(recipe, ray_cluster)
    searched = sweep.STAGE.perform(recipe, ray_cluster)

    trials = searched.figures["trials"]
    assert len(trials) == 3
    assert {"trial", "values", "validation_loss", "steps", "stopped", "seconds"} <= set(trials[0])
    # A rate of 1e30 leaves no numbers: such a trial has failed, and says why.
    for trial in trials:
        assert trial["stopped"].startswith("failed") == (trial["values"]["learning_rate"] == 1e30)
    winner = json.loads(searched.produced["winner"])
    assert winner["values"]["learning_rate"] == 1e-2
    tracked = [run for run in runs.list_runs(ray_cluster.settings, "swept") if run.stage == "trial"]
    assert len(tracked) == 3

    report = train.STAGE.perform(recipe, ray_cluster)

    assert report.figures["resolved_train"]["lora_r"] == winner["values"]["lora_r"]
    assert report.figures["winner"]["trial"] == winner["trial"]
    assert searched.key[:12] in report.figures["winner"]["origin"]["train.lora_r"]
    assert report.fingerprints["sweep"] == searched.key
