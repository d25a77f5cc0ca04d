import json
import math
import random

import pytest

from cluster.errors import GateClosed, StageFailed, UserError
from pipelines import evaluate
from pipelines.evaluation.generate import Answers, Results
from pipelines.gates import Verdict
from pipelines.recipe_file import load_recipe

WORDS = ("red", "blue", "small", "large", "old", "new", "car", "house", "river", "stone", "bird", "tree", "road")


def row(number, group=None):
    messages = [{"role": "user", "content": f"Q{number}"}, {"role": "assistant", "content": f"The word is {number}."}]
    return {"id": f"{number:03}", "group": group, "cluster": f"c{number // 2}", "messages": json.dumps(messages)}


def results(examples, tuned, base_loss=3.0, tuned_loss=2.0):
    """Base answers nonsense; `tuned(reference)` is what the tuned model answers."""
    count = len(examples)
    return Results(
        {
            "base": Answers(["nonsense"] * count, [(base_loss * 5 + i % 3, 5) for i in range(count)], truncated=1),
            "tuned": Answers([tuned(e.reference) for e in examples], [(tuned_loss * 5, 5)] * count),
        },
        tokens_per_second=12.0,
    )


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file(evaluate={"resamples": 400}))


def test_the_choice_is_seeded_and_does_not_depend_on_the_order():
    rows = [row(number) for number in range(50)]
    chosen = [example.id for example in evaluate.choose_examples(rows, 10, seed=1)]
    assert chosen == sorted(chosen) and len(chosen) == 10
    assert [e.id for e in evaluate.choose_examples(rows[::-1], 10, seed=1)] == chosen
    assert [e.id for e in evaluate.choose_examples(rows, 10, seed=2)] != chosen
    assert len(evaluate.choose_examples(rows, None, seed=1)) == 50


def test_what_hangs_together_is_the_group_else_the_cluster():
    examples = evaluate.choose_examples([row(0, "g"), row(1)], None, 1)
    assert [example.group for example in examples] == ["g", "c0"]


def test_an_empty_test_side_is_refused():
    with pytest.raises(UserError, match="empty"):
        evaluate.choose_examples([], None, 1)


def test_a_better_model_opens_the_gate_and_every_answer_is_kept(recipe, workspace):
    import pyarrow.parquet as pq

    examples = evaluate.choose_examples([row(number) for number in range(60)], None, 1)
    outcome = evaluate.compare(examples, results(examples, lambda text: text), recipe, workspace)
    (gate,) = outcome.gates
    assert (gate.gate, gate.verdict) == ("eval.better", Verdict.OPEN)
    assert "RougeL" in gate.evidence and "n = 60 examples in 30 groups" in gate.evidence
    figures = outcome.figures
    json.dumps(figures, allow_nan=False)
    assert figures["candidates"]["tuned"]["rougeL"] == 1
    assert figures["candidates"]["base"]["perplexity"] == pytest.approx(
        math.exp(figures["candidates"]["base"]["loss"]), rel=1e-5
    )
    compared = figures["comparisons"]["loss"]
    assert compared["low"] <= compared["difference"] <= compared["high"] < 0
    assert figures["intervals"]["tuned"]["rougeL"] == {"low": 1.0, "high": 1.0, "n": 60, "groups": 30}
    assert figures["best"][0]["tuned_score"] == 1 and len(figures["worst"]) == 5
    assert figures["truncated"] == {"base": 1, "tuned": 0}
    assert [finding.code for finding in outcome.findings] == ["eval.truncated.base"]
    table = pq.read_table(f"{outcome.produced['answers']}/answers.parquet")
    assert table.num_rows == 60
    assert {"id", "reference", "base", "tuned", "tuned_rougeL", "base_loss"} <= set(table.column_names)


def test_a_worse_loss_closes_the_gate_whatever_the_primary_says(recipe, workspace):
    examples = evaluate.choose_examples([row(number) for number in range(60)], None, 1)
    outcome = evaluate.compare(examples, results(examples, lambda text: text, tuned_loss=4.0), recipe, workspace)
    assert outcome.gates[0].verdict is Verdict.CLOSED
    assert "loss" in outcome.gates[0].evidence


def test_no_difference_closes_the_gate(recipe, workspace):
    examples = evaluate.choose_examples([row(number) for number in range(60)], None, 1)
    outcome = evaluate.compare(examples, results(examples, lambda text: "nonsense"), recipe, workspace)
    assert outcome.gates[0].verdict is Verdict.CLOSED
    assert "no difference" in outcome.gates[0].evidence


def test_one_group_shows_no_interval_and_closes_the_gate(recipe, workspace):
    examples = evaluate.choose_examples([row(number, "same") for number in range(20)], None, 1)
    outcome = evaluate.compare(examples, results(examples, lambda text: text), recipe, workspace)
    assert outcome.gates[0].verdict is Verdict.CLOSED
    assert outcome.figures["comparisons"] == {} and "1 independent group" in outcome.gates[0].evidence
    json.dumps(outcome.figures, allow_nan=False)


def test_examples_beyond_the_context_are_left_out_of_both_and_counted(recipe, workspace):
    examples = evaluate.choose_examples([row(number) for number in range(60)], None, 1)
    found = results(examples, lambda text: text)
    found.too_long = {0, 7}
    outcome = evaluate.compare(examples, found, recipe, workspace)
    assert outcome.figures["examples"] == 58 and outcome.figures["too_long"] == 2
    assert "eval.too_long" in [finding.code for finding in outcome.findings]


def test_broken_weights_fail_the_stage(recipe, workspace):
    examples = evaluate.choose_examples([row(number) for number in range(20)], None, 1)
    with pytest.raises(StageFailed, match="tuned: its loss"):
        evaluate.compare(examples, results(examples, lambda text: text, tuned_loss=math.nan), recipe, workspace)


def test_without_a_trained_model_the_stage_does_not_start(recipe_file, workspace, tmp_path):
    (tmp_path / "examples.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(GateClosed, match="sluice audit"):
        evaluate.STAGE.perform(load_recipe(recipe_file()), workspace)


def write_examples(path, count=200):
    draw = random.Random(0)
    lines = []
    for number in range(count):
        words = " ".join(draw.choice(WORDS) for _ in range(8))
        about = {"annotator": "jane", "source": "made", "collector": "ops"}
        lines.append({"prompt": f"Case {number}: describe {words}", "completion": f"case {number} is {words}"} | about)
    path.write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.cluster
def test_from_examples_to_an_evaluation_that_stands(ray_cluster, recipe_file, tiny_model, tmp_path):
    from pipelines.progress import Progress
    from pipelines.stages import load_stage

    write_examples(tmp_path / "examples.jsonl")
    recipe = load_recipe(
        recipe_file(
            name="evaluated",
            models=[{"base": str(tiny_model)}],
            audit={"min_examples": 100, "max_duplicate_share": 1.0, "near_duplicate_threshold": 1.0},
            train={"learning_rate": 1e-2, "max_steps": 12, "global_batch_size": 4, "max_length": 256, "eval_steps": 6}
            | {"dtype": "float32"},
            evaluate={"primary": "loss", "max_examples": 16, "max_new_tokens": 8, "resamples": 200},
        )
    )
    for name in ("audit", "split", "train"):
        assert load_stage(name).perform(recipe, ray_cluster).verdict is Verdict.OPEN
    report = evaluate.STAGE.perform(recipe, ray_cluster, Progress(quiet=True))
    figures = report.figures
    assert figures["examples"] == 16
    # The loss is the one that training reports: the same encoding, weighted by the same tokens.
    trained = load_stage("train").perform(recipe, ray_cluster)
    assert figures["candidates"]["base"]["loss"] == pytest.approx(trained.figures["baseline_validation_loss"], rel=0.1)
    assert figures["comparisons"]["loss"]["high"] < 0
    assert figures["tokens_per_second"] > 0
    again = evaluate.STAGE.perform(recipe, ray_cluster)
    assert again.created_at == report.created_at
    changed = evaluate.STAGE.reads(
        recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_new_tokens": 9})}), ray_cluster
    )
    assert changed != report.fingerprints
    # Who generates is part of what was compared; where the work runs is not.
    for update, same in (({"engine": "vllm"}, False), ({"num_workers": 2}, True)):
        elsewhere = recipe.model_copy(update={"cluster": recipe.cluster.model_copy(update=update)})
        assert (evaluate.STAGE.reads(elsewhere, ray_cluster) == report.fingerprints) is same
