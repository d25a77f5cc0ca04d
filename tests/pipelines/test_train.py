"""The train stage: what it reads, how it judges, and the whole of it on a tiny model."""

from dataclasses import replace

import pytest

from cluster.errors import GateClosed, UserError
from pipelines import train
from pipelines.gates import Report, Verdict
from pipelines.progress import Progress
from pipelines.recipe_file import load_recipe
from pipelines.training import verdicts
from pipelines.training.encoding import SideFigures
from tests.pipelines.small_recipe import small_recipe  # noqa: F401


def outcome(losses, baseline=3.0, kept=None, learnt=2.0):
    history = [
        {"step": step, "train_loss": learnt, "validation_loss": loss} for step, loss in enumerate(losses, start=1)
    ]
    best = min(losses)
    return {
        "history": history,
        "stopping": {"best_loss": best},
        "baseline_loss": baseline,
        "baseline_figures": {},
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


def test_preferences_are_told_in_margins_and_pairs_not_in_perplexity():
    result = outcome([0.6, 0.4], baseline=0.693)
    result["baseline_figures"] = {"reward_margin": 0.0, "reward_accuracy": 0.5}
    for entry in result["history"]:
        entry |= {"reward_margin": 0.9, "reward_accuracy": 0.84}

    evidence = verdicts.converged_gate(result, verdicts.kept_loss(result)).evidence
    assert "reward margin +0.000 to +0.900, held-out pairs told right 50% to 84%" in evidence
    assert "perplexity" not in evidence
    event = {"kind": "validation", "loss": 0.4, "reward_margin": 0.9, "reward_accuracy": 0.84}
    assert train.tracked(event) == {
        "validation/loss": 0.4,
        "validation/reward_margin": 0.9,
        "validation/reward_accuracy": 0.84,
    }


def test_preferences_need_a_rejected_answer_in_every_row():
    verdicts.check_pairs("dpo", "train", 9, 0)
    with pytest.raises(UserError, match="3 of 9 examples of the train side have no rejected answer") as refused:
        verdicts.check_pairs("dpo", "train", 9, 3)
    assert "dataset.format: preference" in refused.value.remedy


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
    [finding] = verdicts.input_findings(lost, "validation")
    assert finding.code == "train.truncation.dropped.validation"
    assert finding.message.startswith("2 of 100 examples of the validation side are longer")


def test_a_side_with_nothing_left_is_refused_with_its_name_and_the_remedy():
    verdicts.check_sides(figures(bins=1), figures(bins=1))
    with pytest.raises(UserError, match="validation side has nothing left: of 100 examples 100 are longer") as refused:
        verdicts.check_sides(figures(bins=1), figures(bins=0, dropped=100))
    assert "train.max_length" in refused.value.remedy
    with pytest.raises(UserError, match="The training side"):
        verdicts.check_sides(figures(bins=0), figures(bins=1))


def test_a_lora_target_that_the_model_lacks_is_refused_with_the_modules_it_has(tiny_model):
    from pipelines.models.load import BaseFiles
    from pipelines.recipe import Cluster, Train
    from pipelines.training.check import check_recipe

    base = BaseFiles("tiny", tiny_model, "f", "local", "")
    check_recipe(Train(target_modules=("q_proj", "mlp.up_proj")), Cluster(), base)
    with pytest.raises(UserError, match="has no q_project; did you mean q_proj") as refused:
        check_recipe(Train(target_modules=("q_project",)), Cluster(), base)
    assert "down_proj, gate_proj" in refused.value.remedy
    with pytest.raises(UserError, match="1024 positions"):
        check_recipe(Train(max_length=2048), Cluster(), base)
    with pytest.raises(UserError, match="not divisible"):
        check_recipe(Train(global_batch_size=4), Cluster(num_workers=3), base)
    check_recipe(Train(), Cluster(engine="vllm"), base)
    with pytest.raises(UserError, match=r"vllm serves no adapters of train\.use_dora"):
        check_recipe(Train(use_dora=True), Cluster(engine="vllm"), base)


@pytest.mark.cluster
def test_training_before_the_split_names_the_missing_evidence(recipe_file, workspace, tmp_path):
    (tmp_path / "examples.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(GateClosed, match="there is no audit report"):
        train.STAGE.perform(load_recipe(recipe_file()), workspace)


@pytest.mark.cluster
def test_the_stage_trains_judges_tracks_and_stands_when_nothing_changed(small_recipe, ray_cluster, capsys):  # noqa: F811
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


def test_what_the_bins_are_made_of_stands_in_the_ledger(workspace, recipe_file, tiny_model, tmp_path, monkeypatch):
    from pipelines.data.versioned.ledger import STOPPING, WEIGHTS, check_fits
    from pipelines.models.load import BaseFiles
    from tests.pipelines.data.small_table import write_rows

    sides = ["train"] * 3 + ["validation"] * 2 + ["test"]
    written = write_rows(tmp_path / "table", *({"id": f"i{n}", "split": side} for n, side in enumerate(sides)))
    produced = {"table": written.uri, "version": "0", "split": written.fingerprint}
    monkeypatch.setattr(train, "require", lambda *_: Report.model_construct(produced=produced))
    recipe = load_recipe(recipe_file())
    base = BaseFiles("tiny", tiny_model, "f", "local", "")
    train.prepare_bins(recipe, recipe.train, base, workspace, Progress(quiet=True))
    fits = [(fit.transform, fit.side, fit.rows) for fit in check_fits(workspace, written.uri, 0)]
    assert fits == [(WEIGHTS, "train", 3), (STOPPING, "validation", 2)]


def test_of_a_fold_the_ledger_says_that_it_watched_within_the_training_side(
    workspace, recipe_file, tiny_model, tmp_path, monkeypatch
):
    from pipelines.data.versioned.ledger import IN_FOLD, STOPPING, WEIGHTS, check_fits
    from pipelines.models.load import BaseFiles
    from tests.pipelines.data.small_table import write_rows

    rows = [{"id": f"i{n}", "split": "train", "fold": n % 2} for n in range(5)] + [{"id": "v", "split": "validation"}]
    written = write_rows(tmp_path / "table", *rows)
    produced = {"table": written.uri, "version": "0", "split": written.fingerprint}
    monkeypatch.setattr(train, "require", lambda *_: Report.model_construct(produced=produced))
    recipe = load_recipe(recipe_file(split={"folds": 2}, train={"fold": 1}))
    base = BaseFiles("tiny", tiny_model, "f", "local", "")
    train.prepare_bins(recipe, recipe.train, base, workspace, Progress(quiet=True))
    fits = check_fits(workspace, written.uri, 0)
    assert [(fit.transform, fit.side, fit.rows) for fit in fits] == [
        (WEIGHTS, "train", 3),
        (STOPPING + IN_FOLD, "train", 2),
    ]
    assert [fit.problem for fit in fits] == [None, None]
    other = load_recipe(recipe_file(split={"folds": 2}, train={"fold": 0}))
    assert recipe.train.learnt_from() != other.train.learnt_from()


@pytest.mark.parametrize(
    ("split", "fold", "told"),
    [
        ({}, 0, "train.fold needs split.folds"),
        ({"folds": 3}, 3, "split.folds 3 has 0 to 2"),
        ({"folds": 3}, -1, "fold"),
    ],
)
def test_a_fold_that_there_is_not_is_refused_before_anything_runs(recipe_file, split, fold, told):
    with pytest.raises(UserError, match=told):
        load_recipe(recipe_file(split=split, train={"fold": fold}))
